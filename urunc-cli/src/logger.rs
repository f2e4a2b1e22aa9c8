//! Log records in the shape that containerd's shim reads: `{"level":…,"msg":…,"time":…}`, one a line, the time
//! in RFC 3339. The shim shows its user the last record of level `error` (containerd,
//! `cmd/containerd-shim-runc-v2/process/utils.go`), so nothing else may ever be in the file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
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

/// Where syslog listens (syslog(3)).
pub const SYSLOG: &str = "/dev/log";

#[derive(Debug)]
struct Logger {
    file: Option<File>,
    format: LogFormat,
    syslog: Option<UnixDatagram>,
}

/// Installs the process's logger. Must be called once. `syslog` is the socket that gets all records besides; without
/// anybody behind it, a warning is all that comes of it (B46).
///
/// # Errors
/// `LogError` if the file cannot be opened for appending.
pub fn install(
    file: Option<&Path>,
    format: LogFormat,
    level: LevelFilter,
    syslog: Option<&Path>,
) -> Result<(), LogError> {
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
    let connected = syslog.map(connect).transpose();
    let (syslog, problem) = match connected {
        Ok(socket) => (socket, None),
        Err(error) => (None, Some(error)),
    };
    if log::set_boxed_logger(Box::new(Logger { file, format, syslog })).is_ok() {
        log::set_max_level(level);
    }
    if let Some(error) = problem {
        log::warn!("cannot log to syslog: {error}");
    }
    Ok(())
}

/// Installs a logger that writes text into `file`.
pub fn install_file(file: File, level: LevelFilter) {
    if log::set_boxed_logger(Box::new(Logger { file: Some(file), format: LogFormat::Text, syslog: None }))
        .is_ok()
    {
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
        if let Some(syslog) = &self.syslog {
            let _ = syslog.send(syslog_line(record).as_bytes());
        }
    }

    fn flush(&self) {}
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    // A syslog that does not read must not hold up a command.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// RFC 3164, with the facility "daemon"; whoever reads `/dev/log` adds the time.
fn syslog_line(record: &Record<'_>) -> String {
    const DAEMON: u8 = 3 << 3;
    let severity = match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    format!("<{}>urunc[{}]: {}", DAEMON | severity, std::process::id(), record.args())
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
    fn syslog_gets_the_severity_and_our_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert!(connect(&path).is_err());
        let server = UnixDatagram::bind(&path).unwrap();
        let record = Record::builder().level(Level::Warn).args(format_args!("odd")).build();
        connect(&path).unwrap().send(syslog_line(&record).as_bytes()).unwrap();
        let mut buffer = [0; 100];
        let length = server.recv(&mut buffer).unwrap();
        let expected = format!("<28>urunc[{}]: odd", std::process::id());
        assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), expected);
    }

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
