//! What `ps` prints: the numbers of a container's processes, or what ps(1) of the host says of them, as runc has it.

use std::io::{self, Write};
use std::process::Command;

use urunc_state::ContainerId;

use super::CommandError;
use crate::args::{OutputFormat, PsArgs};
use crate::lifecycle::Runtime;

/// What runc asks ps(1) for.
const USUAL: [&str; 1] = ["-ef"];

/// Why ps(1) is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PsError {
    /// It cannot be run.
    #[error("cannot run ps, which lists processes; install it (Debian: procps), or use --format json")]
    Run(#[source] io::Error),
    /// It does not like its options.
    #[error("cannot list processes: ps says {0:?}")]
    Refused(String),
    /// Its output cannot be filtered.
    #[error("cannot list processes: with these options ps does not print the column PID; add it")]
    NoPid,
}

pub(super) fn print(runtime: &Runtime, args: PsArgs) -> Result<(), CommandError> {
    let pids: Vec<i32> =
        runtime.processes(&ContainerId::new(args.id)?)?.iter().map(|pid| pid.get()).collect();
    let text = match args.format {
        OutputFormat::Json => serde_json::json!(pids).to_string() + "\n",
        OutputFormat::Table => {
            let said = ps(&args.ps_options)?;
            filter(&said, &pids).ok_or(PsError::NoPid)?
        }
    };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

fn ps(options: &[String]) -> Result<String, PsError> {
    let mut command = Command::new("ps");
    match options {
        [] => command.args(USUAL),
        options => command.args(options),
    };
    let output = command.output().map_err(PsError::Run)?;
    if !output.status.success() {
        return Err(PsError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The heads, and the lines of `pids`.
fn filter(said: &str, pids: &[i32]) -> Option<String> {
    let mut lines = said.lines();
    let heads = lines.next()?;
    let column = heads.split_ascii_whitespace().position(|head| head == "PID")?;
    let is_one = |line: &&str| {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|pid| pid.parse::<i32>().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let lines: Vec<&str> = std::iter::once(heads).chain(lines.filter(is_one)).collect();
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_stay() {
        let said =
            "UID  PID  PPID CMD\nroot   1     0 init\nroot  12     1 sleep 7\nroot   7     1 sleep 12\n";
        let expected = "UID  PID  PPID CMD\nroot  12     1 sleep 7\n";
        assert_eq!(filter(said, &[12]).as_deref(), Some(expected));
        assert_eq!(filter(said, &[]).as_deref(), Some("UID  PID  PPID CMD\n"));
        assert_eq!(filter("CMD\nsleep\n", &[12]), None);
        assert_eq!(filter("", &[12]), None);
    }
}
