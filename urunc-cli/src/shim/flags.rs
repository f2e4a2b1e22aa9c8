//! The shim's command line, in the shape that containerd writes and Go's `flag` package reads:
//! `-name value`, `-name=value`, one dash or two, and at most one action at the end
//! (containerd, `docs/runtime-v2.md` "Command Line").

use std::ffi::OsString;
use std::path::PathBuf;

use super::ShimError;

/// What the process is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Find or make the shim of a pod and print its address.
    Start,
    /// Clean up after a shim that died.
    Delete,
    /// Be the shim.
    Serve,
    /// Print what this shim is, as a message.
    Info,
    /// Print the version.
    Version,
}

/// The command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// What to do.
    pub action: Action,
    /// containerd's namespace.
    pub namespace: String,
    /// The container.
    pub id: String,
    /// containerd's main socket.
    pub address: PathBuf,
    /// The bundle, where it is not the working directory.
    pub bundle: Option<PathBuf>,
    /// Where the shim listens, for `Serve`.
    pub socket: Option<PathBuf>,
    /// Whether to log decisions.
    pub debug: bool,
}

impl Flags {
    /// Reads a command line without the program's name.
    ///
    /// # Errors
    /// [`ShimError::Usage`] with what cannot be understood.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, ShimError> {
        let mut flags = Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: PathBuf::new(),
            bundle: None,
            socket: None,
            debug: false,
        };
        let text = |value: OsString| {
            value.into_string().map_err(|value| ShimError::Usage(format!("{} is not UTF-8", value.display())))
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let argument = text(argument)?;
            let Some(option) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
                flags.action = match argument.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    other => return Err(ShimError::Usage(format!("there is no action {other:?}"))),
                };
                continue;
            };
            let (name, mut value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (option, None),
            };
            let mut value = || -> Result<String, ShimError> {
                match value.take() {
                    Some(value) => Ok(value),
                    None => text(
                        arguments.next().ok_or_else(|| ShimError::Usage(format!("-{name} needs a value")))?,
                    ),
                }
            };
            match name {
                "namespace" => flags.namespace = value()?,
                "id" => flags.id = value()?,
                "address" => flags.address = value()?.into(),
                "bundle" => flags.bundle = Some(value()?.into()),
                "socket" => flags.socket = Some(value()?.into()),
                // The binary that older containerds have events published with; ours go over TTRPC_ADDRESS.
                "publish-binary" => drop(value()?),
                "debug" => flags.debug = option != "debug=false",
                "info" => flags.action = Action::Info,
                "v" | "version" => flags.action = Action::Version,
                _ => return Err(ShimError::Usage(format!("there is no option -{name}"))),
            }
        }
        flags.check()?;
        Ok(flags)
    }

    /// The id and the namespace become parts of paths.
    fn check(&self) -> Result<(), ShimError> {
        if matches!(self.action, Action::Info | Action::Version) {
            return Ok(());
        }
        for (name, value) in [("-id", &self.id), ("-namespace", &self.namespace)] {
            if value.is_empty() || value.contains('/') || value == "." || value == ".." {
                return Err(ShimError::Usage(format!("{name} {value:?} is no name")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, ShimError> {
        Flags::parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn containerd_is_understood() {
        let flags = parse(
            "-namespace k8s.io -address /run/containerd/containerd.sock -publish-binary /usr/bin/containerd -id c1 -debug start",
        )
        .unwrap();
        assert_eq!(flags.action, Action::Start);
        assert_eq!((flags.namespace.as_str(), flags.id.as_str()), ("k8s.io", "c1"));
        assert!(flags.debug);
        let flags = parse("--namespace=moby -address= -id c1 -bundle /b/c1 delete").unwrap();
        assert_eq!((flags.action, flags.bundle), (Action::Delete, Some("/b/c1".into())));
        // containerd 2.x asks without naming anything.
        assert_eq!(parse("-info").unwrap().action, Action::Info);
    }

    #[test]
    fn what_would_leave_the_bundle_is_refused() {
        for line in [
            "-id .. -namespace n start",
            "-id a/b -namespace n start",
            "-id a start",
            "-id a -namespace n run",
        ] {
            assert!(matches!(parse(line), Err(ShimError::Usage(_))), "{line}");
        }
    }
}
