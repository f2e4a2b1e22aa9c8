//! Where a process's standard streams go. A process gets the fifos, files and pipes themselves; nothing is copied through the shim,
//! except for terminals.
//!
//! A fifo's reader and writer come and go as clients attach and containerd is restarted. So while the process lives, the shim keeps every
//! fifo open for reading and writing: no client that leaves makes the process see an end of file or a broken pipe. When the process has
//! ended, the shim lets go, and the reader sees the end.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ShimError;
use super::children::Children;
use super::logger::Logger;
use super::runtime::Streams;

/// What containerd asks for: paths of fifos, or URIs; empty is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// For standard input.
    pub stdin: String,
    /// For standard output; with a terminal, for all that the terminal prints.
    pub stdout: String,
    /// For standard error.
    pub stderr: String,
    /// Whether the process gets a terminal.
    pub terminal: bool,
}

/// What the shim keeps for a process.
#[derive(Debug, Default)]
pub struct Held {
    stdin: Option<File>,
    outputs: Vec<File>,
    logger: Option<Logger>,
}

impl Held {
    /// No client will write any more: once those that are attached leave, the process sees the end of its input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The process has ended: whoever reads its output sees the end.
    pub fn let_go(&mut self) {
        self.stdin = None;
        self.outputs.clear();
    }

    /// Hands out the logger, whose end may take a moment to wait for.
    pub fn take_logger(&mut self) -> Option<Logger> {
        self.logger.take()
    }
}

/// Opens what is asked for.
///
/// # Errors
/// [`ShimError::Path`], [`ShimError::Invalid`], or what starting a logger fails with.
pub fn open(
    children: &Arc<Children>,
    request: &Request,
    namespace: &str,
    id: &str,
) -> Result<(Streams, Held), ShimError> {
    let mut held = Held::default();
    let stdin = input(&request.stdin, &mut held)?;
    let (stdout, stderr) = if is_logger(&request.stdout) {
        let (logger, pipes) = Logger::start(children, &request.stdout, namespace, id)?;
        held.logger = Some(logger);
        (pipes.stdout, pipes.stderr)
    } else {
        (output(&request.stdout, &mut held)?, output(&request.stderr, &mut held)?)
    };
    Ok((Streams { stdin, stdout, stderr }, held))
}

/// Streams that lead nowhere, for the command that makes a process whose own streams are a terminal.
///
/// # Errors
/// [`ShimError::Path`]
pub fn nowhere() -> Result<Streams, ShimError> {
    Ok(Streams { stdin: null()?, stdout: null()?, stderr: null()? })
}

fn is_logger(uri: &str) -> bool {
    uri.starts_with("binary://")
}

fn null() -> Result<OwnedFd, ShimError> {
    let path = Path::new("/dev/null");
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map(OwnedFd::from).map_err(ShimError::path("open", path))
}

fn is_fifo(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// A fifo, open in a way that neither waits for nor misses the other side.
fn hold(path: &Path) -> Result<File, ShimError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map_err(ShimError::path("open the fifo", path))
}

fn input(request: &str, held: &mut Held) -> Result<OwnedFd, ShimError> {
    if request.is_empty() {
        return null();
    }
    let path = PathBuf::from(request.strip_prefix("fifo://").unwrap_or(request));
    if is_fifo(&path) {
        held.stdin = Some(hold(&path)?);
    }
    File::open(&path).map(OwnedFd::from).map_err(ShimError::path("read from", path))
}

fn output(request: &str, held: &mut Held) -> Result<OwnedFd, ShimError> {
    if request.is_empty() {
        return null();
    }
    match request.split_once("://") {
        None => to_path(Path::new(request), held),
        Some(("fifo", path)) => to_path(Path::new(path), held),
        Some(("file", rest)) => {
            let path = Path::new(rest.split_once('?').map_or(rest, |(path, _)| path));
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(ShimError::path("make the directory", parent))?;
            }
            append(path)
        }
        Some((scheme, _)) => Err(ShimError::Invalid {
            what: "where the output is to go",
            reason: format!("{scheme}:// is not known; known are fifo, file and binary"),
        }),
    }
}

fn to_path(path: &Path, held: &mut Held) -> Result<OwnedFd, ShimError> {
    if !is_fifo(path) {
        return append(path);
    }
    held.outputs.push(hold(path)?);
    // Write only: a process must not be able to read its own output back.
    let file = OpenOptions::new().write(true).open(path);
    file.map(OwnedFd::from).map_err(ShimError::path("write to", path))
}

fn append(path: &Path) -> Result<OwnedFd, ShimError> {
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    file.map(OwnedFd::from).map_err(ShimError::path("write to", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn fifo(dir: &Path, name: &str) -> String {
        let path = dir.join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_reader_sees_the_end_when_the_process_has_gone_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let request = Request { stdout: fifo(dir.path(), "out"), ..Request::default() };
        let (streams, mut held) = open(&Arc::default(), &request, "n", "c").unwrap();
        let mut process = File::from(streams.stdout);
        // A client that leaves and one that comes do not matter to the process.
        drop(File::open(&request.stdout).unwrap());
        process.write_all(b"said").unwrap();
        let mut reader = File::open(&request.stdout).unwrap();
        let mut said = [0; 4];
        reader.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"said");
        drop(process);
        held.let_go();
        assert_eq!(reader.read(&mut said).unwrap(), 0);
    }

    #[test]
    fn input_ends_once_it_is_closed_and_the_client_has_left() {
        let dir = tempfile::tempdir().unwrap();
        let request = Request { stdin: fifo(dir.path(), "in"), ..Request::default() };
        let (streams, mut held) = open(&Arc::default(), &request, "n", "c").unwrap();
        let mut client = OpenOptions::new().write(true).open(&request.stdin).unwrap();
        client.write_all(b"hi").unwrap();
        held.close_stdin();
        drop(client);
        let mut heard = String::new();
        File::from(streams.stdin).read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hi");
    }

    #[test]
    fn files_are_appended_to_and_their_directories_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/log");
        for _ in 0..2 {
            let request = Request { stdout: format!("file://{}?x=y", path.display()), ..Request::default() };
            let (streams, _held) = open(&Arc::default(), &request, "n", "c").unwrap();
            File::from(streams.stdout).write_all(b"line\n").unwrap();
        }
        assert_eq!(fs::read_to_string(path).unwrap(), "line\nline\n");
    }

    #[test]
    fn an_unknown_scheme_is_refused() {
        let request = Request { stdout: "gopher://x".into(), ..Request::default() };
        assert!(matches!(open(&Arc::default(), &request, "n", "c"), Err(ShimError::Invalid { .. })));
    }
}
