//! The `urunc` binary: parses, runs one command, reports.
#![deny(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use urunc_cli::args::Args;
use urunc_cli::{commands, report};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    urunc_cli::sandbox::heed_children();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return misunderstood(&error),
    };
    let log_file = args.global.log.is_some();
    match commands::run(args) {
        Ok(code) => code,
        Err(error) => fail(&error, log_file),
    }
}

fn misunderstood(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        let line: Vec<_> = std::env::args_os().collect();
        if let Some(error) = commands::run_unknown(&line) {
            return fail(&error, line.iter().any(|word| word.to_string_lossy().starts_with("--log")));
        }
        commands::log_usage_error(error, line.into_iter());
    }
    // Nowhere to report a failure to print to.
    let _ = error.print();
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn fail(error: &commands::CommandError, log_file: bool) -> ExitCode {
    let text = report::chain(error);
    // containerd shows its user the last error of the log file; a person looks at the terminal.
    log::error!("{text}");
    if log_file || !log::log_enabled!(log::Level::Error) {
        // Where standard error cannot be written to, nobody is told.
        let _ = writeln!(std::io::stderr(), "urunc: {text}");
    }
    ExitCode::FAILURE
}
