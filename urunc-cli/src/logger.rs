//! Log records in the shape that containerd's shim reads: `{"level":…,"msg":…,"time":…}`, one a line, the time
//! in RFC 3339. The shim shows its user the last record of level `error` (containerd,
//! `cmd/containerd-shim-runc-v2/process/utils.go`), so nothing else may ever be in the file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};
use urunc_state::Timestamp;

use crate::args::LogFormat;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the log file {path}")]
pub struct LogError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

#[derive(Debug)]
struct Logger {
    file: Option<File>,
    format: LogFormat,
}

/// Installs the process's logger. Must be called once.
///
/// # Errors
/// `LogError` if the file cannot be opened for appending.
pub fn install(file: Option<&Path>, format: LogFormat, level: LevelFilter) -> Result<(), LogError> {
    let file = file
        .map(|path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o644)
                .open(path)
                .map_err(|source| LogError { path: path.to_owned(), source })
        })
        .transpose()?;
    if log::set_boxed_logger(Box::new(Logger { file, format })).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// Installs a logger that writes text into `file`.
pub fn install_file(file: File, level: LevelFilter) {
    if log::set_boxed_logger(Box::new(Logger { file: Some(file), format: LogFormat::Text })).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = match self.format {
            LogFormat::Json => json_line(record, SystemTime::now()),
            LogFormat::Text => text_line(record),
        };
        // One write per record, so that records of concurrent commands do not mix. A failure to log has nowhere
        // to be reported.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

fn json_line(record: &Record<'_>, now: SystemTime) -> String {
    let mut line = serde_json::json!({
        "level": level_name(record.level()),
        "msg": record.args().to_string(),
        "time": Timestamp::from(now).to_string(),
    })
    .to_string();
    line.push('\n');
    line
}

fn text_line(record: &Record<'_>) -> String {
    format!("urunc: {}: {}\n", level_name(record.level()), record.args())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_record_is_one_line_with_the_keys_that_containerd_reads() {
        let line = json_line(
            &Record::builder().level(Level::Error).args(format_args!("cannot\nstart \"x\"")).build(),
            SystemTime::UNIX_EPOCH,
        );
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "error");
        assert_eq!(value["msg"], "cannot\nstart \"x\"");
        assert!(value["time"].as_str().unwrap().starts_with("1970-01-01T00:00:00"));
    }
}
