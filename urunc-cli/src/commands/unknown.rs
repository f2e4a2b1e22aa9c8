//! Commands and flags that are not ours, but may be the other runtime's: `checkpoint`, `restore`, and whatever its next
//! version brings. Such a command line is only sketched: which container or bundle is it about, and whose is that?

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use urunc_state::ContainerId;

use super::{CommandError, config, delegate, usage};
use crate::args::Args;
use crate::config::Config;
use crate::lifecycle;
use crate::logger;

/// Commands that are about a bundle, because there is no container yet.
const ABOUT_BUNDLES: [&str; 3] = ["create", "run", "restore"];
/// Options before the command that take a value.
const WITH_VALUE: [&str; 5] = ["--root", "--log", "--log-format", "--criu", "--rootless"];

/// What a command line is about, as far as it can be told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sketch {
    root: Option<PathBuf>,
    command: String,
    /// What follows the command.
    rest: Vec<String>,
}

fn sketch(line: impl Iterator<Item = OsString>) -> Option<Sketch> {
    let mut words = line.skip(1).map(|word| word.to_string_lossy().into_owned());
    let mut root = None;
    loop {
        let word = words.next()?;
        if !word.starts_with('-') {
            return Some(Sketch { root, command: word, rest: words.collect() });
        }
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        if WITH_VALUE.contains(&name.as_str()) {
            let value = attached.or_else(|| words.next())?;
            if name == "--root" {
                root = Some(value.into());
            }
        }
    }
}

impl Sketch {
    fn bundle(&self) -> PathBuf {
        let mut words = self.rest.iter();
        while let Some(word) = words.next() {
            if matches!(word.as_str(), "--bundle" | "-b") {
                return words.next().map_or_else(PathBuf::new, PathBuf::from);
            }
            if let Some(value) = word.strip_prefix("--bundle=") {
                return value.into();
            }
        }
        ".".into()
    }

    /// What may be a container's id. The last ones first: flags and their values come before.
    fn ids(&self) -> impl Iterator<Item = ContainerId> {
        let words = self.rest.iter().rev().filter(|word| !word.starts_with('-'));
        words.filter_map(|word| ContainerId::new(word.as_str()).ok())
    }
}

/// Whose a command line's container is.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Ours(String),
    Theirs,
}

fn owner(sketch: &Sketch, delegate: &Path) -> Option<Owner> {
    if ABOUT_BUNDLES.contains(&sketch.command.as_str()) {
        let bundle = sketch.bundle();
        return match lifecycle::is_unikernel(&bundle) {
            Ok(true) => Some(Owner::Ours(format!("bundle {}", bundle.display()))),
            Ok(false) => Some(Owner::Theirs),
            // What is wrong with it is not what the caller must know first.
            Err(_) => None,
        };
    }
    sketch.ids().find_map(|id| match &sketch.root {
        Some(root) => owner_of(&id, root),
        None => owner_of(&id, &lifecycle::default_root())
            .or_else(|| delegate::may_have(delegate, &id).then_some(Owner::Theirs)),
    })
}

fn owner_of(id: &ContainerId, root: &Path) -> Option<Owner> {
    let directory = root.join(id.as_str());
    if directory.join("origin.json").exists() {
        Some(Owner::Ours(format!("container {id}")))
    } else {
        directory.is_dir().then_some(Owner::Theirs)
    }
}

/// Carries out a command line that ours is not: becomes the other runtime if it is about that one's container. `None` if it is just wrong.
pub(super) fn run(line: &[OsString]) -> Option<CommandError> {
    let sketch = sketch(line.iter().cloned())?;
    let known = Args::command().find_subcommand(&sketch.command).is_some();
    let config = Config::load(std::env::var_os(config::PATH_VARIABLE).map(Into::into)).unwrap_or_default();
    match owner(&sketch, &config.runtime.delegate)? {
        // With a flag that we do not know: then that is what must be said.
        Owner::Ours(_) if known => None,
        Owner::Ours(what) => {
            install_log(line);
            Some(CommandError::Unsupported { command: sketch.command, what })
        }
        Owner::Theirs => {
            install_log(line);
            Some(delegate::execute(&config.runtime.delegate).into())
        }
    }
}

fn install_log(line: &[OsString]) {
    let log = usage::log_of(line.iter().cloned());
    let (path, format) =
        log.map_or((None, crate::args::LogFormat::Text), |(path, format)| (Some(path), format));
    // Where it cannot be opened, standard error has to do.
    let _ = logger::install(path.as_deref(), format, log::LevelFilter::Warn, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Sketch {
        sketch(line.split(' ').map(OsString::from)).unwrap()
    }

    #[test]
    fn a_command_line_is_sketched_without_knowing_its_flags() {
        let found = of("urunc --root /r --log=/l --debug checkpoint --image-path /i --leave-running c1");
        assert_eq!((found.root.as_deref(), found.command.as_str()), (Some(Path::new("/r")), "checkpoint"));
        assert_eq!(found.ids().map(|id| id.to_string()).collect::<Vec<_>>(), ["c1"]);
        assert_eq!(of("urunc restore --bundle /b --image-path /i c1").bundle(), Path::new("/b"));
        assert_eq!(of("urunc restore --bundle=/b c1").bundle(), Path::new("/b"));
        assert_eq!(of("urunc run -b /b c1").bundle(), Path::new("/b"));
        assert_eq!(of("urunc restore c1").bundle(), Path::new("."));
        assert_eq!(sketch(["urunc", "--root"].map(OsString::from).into_iter()), None);
        assert_eq!(sketch(["urunc"].map(OsString::from).into_iter()), None);
    }

    #[test]
    fn a_container_is_whose_directory_says_so() {
        let root = tempfile::tempdir().unwrap();
        for (id, file) in [("ours", "origin.json"), ("theirs", "state.json")] {
            std::fs::create_dir(root.path().join(id)).unwrap();
            std::fs::write(root.path().join(id).join(file), "{}").unwrap();
        }
        let runc = Path::new("runc");
        let of = |line: &str| owner(&of(&format!("urunc --root {} {line}", root.path().display())), runc);
        assert_eq!(of("checkpoint ours"), Some(Owner::Ours("container ours".into())));
        assert_eq!(of("checkpoint --image-path ./x theirs"), Some(Owner::Theirs));
        // What follows the id is not asked for, unless nothing else is known.
        assert_eq!(of("exec --pidfd-socket /s theirs sh -c true"), Some(Owner::Theirs));
        assert_eq!(of("checkpoint nobody"), None);
        assert_eq!(of("frobnicate"), None);
        assert_eq!(of("restore --bundle /nonexistent c"), None);
    }
}
