//! The `containerd-shim-urunc-v2` binary: containerd starts it as the parent of a pod's containers.
#![deny(unsafe_code)]

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> std::process::ExitCode {
    urunc_cli::sandbox::heed_children();
    urunc_cli::shim::main()
}
