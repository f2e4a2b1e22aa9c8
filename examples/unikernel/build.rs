//! Tells the linker how a guest is laid out. Everything is here and nothing in `.cargo/config.toml`, so that
//! `cargo build --release` is all it takes, from any folder and whatever RUSTFLAGS says.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo:rerun-if-changed=unikernel.ld");

    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        // Solo5 wants each segment on pages of its own, and pages are 4 KiB there.
        "-Wl,-z,max-page-size=4096",
        "-Wl,-z,norelro",
        // A note of the toolchain's could become the last one, where Firecracker looks for the PVH note.
        "-Wl,--build-id=none",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{folder}/unikernel.ld");

    // The ELF entry is Solo5's; PVH has its own, in a note.
    for (bin, entry) in [
        ("demo", "hvt_start"),
        ("demo-net", "hvt_start"),
        ("demo-block", "hvt_start"),
        ("demo-spt", "spt_start"),
        ("demo-net-spt", "spt_start"),
        ("demo-block-spt", "spt_start"),
    ] {
        println!("cargo:rustc-link-arg-bin={bin}=-Wl,--entry={entry}");
    }
}
