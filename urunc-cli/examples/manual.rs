//! Writes the manual pages and the shell completions of `urunc` below a directory, as `make install` needs them:
//! `cargo run -p urunc-cli --example manual -- DIRECTORY`. They are made from the grammar of the command line itself, by
//! crates that the runtime does not carry.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;
use urunc_cli::args::Args;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("give the directory to write to")?);
    let man = directory.join("man1");
    fs::create_dir_all(&man)?;
    clap_mangen::generate_to(Args::command().disable_help_subcommand(true), &man)?;
    for (shell, place, name) in [
        (Shell::Bash, "bash-completion/completions", "urunc"),
        (Shell::Zsh, "zsh/site-functions", "_urunc"),
        (Shell::Fish, "fish/vendor_completions.d", "urunc.fish"),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), "urunc", &mut script);
        let place = directory.join(place);
        fs::create_dir_all(&place)?;
        fs::write(place.join(name), script)?;
    }
    Ok(())
}
