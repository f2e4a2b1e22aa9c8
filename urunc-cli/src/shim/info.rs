//! `-info` and `-v`: what this shim is, for containerd 2.x and for people.

use std::io::{self, Write};

use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use super::ShimError;

const NAME: &str = "io.containerd.urunc.v2";

fn info() -> RuntimeInfo {
    let version =
        RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), ..RuntimeVersion::default() };
    RuntimeInfo { name: NAME.to_owned(), version: MessageField::some(version), ..RuntimeInfo::default() }
}

/// Prints the message `RuntimeInfo`.
///
/// # Errors
/// [`ShimError::Message`], [`ShimError::System`]
pub fn print() -> Result<(), ShimError> {
    let message =
        info().write_to_bytes().map_err(|source| ShimError::Message { what: "the answer", source })?;
    write(&message)
}

/// Prints the version.
///
/// # Errors
/// [`ShimError::System`]
pub fn print_version() -> Result<(), ShimError> {
    write(format!("containerd-shim-urunc-v2 ({NAME}) {}\n", env!("CARGO_PKG_VERSION")).as_bytes())
}

fn write(bytes: &[u8]) -> Result<(), ShimError> {
    io::stdout().write_all(bytes).map_err(|source| ShimError::System("write to standard output", source))
}
