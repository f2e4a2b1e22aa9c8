//! A shim spoken to as containerd does, and one whose runtime is slow where a test wants it to be.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use containerd_shim_protos::ttrpc::context::{self, Context};
use containerd_shim_protos::{Client, TaskClient};

use crate::containerd::{Containerd, SHIM};

/// A connection to the only shim there is.
pub(crate) fn client(containerd: &Containerd) -> TaskClient {
    let (_, words) = containerd.shims().first().cloned().unwrap();
    let address = format!("unix://{}", Containerd::socket(&words).display());
    TaskClient::new(Client::connect(&address).unwrap())
}

/// For a call that ends by itself.
pub(crate) fn patience() -> Context {
    context::with_timeout(180_000_000_000)
}

/// A copy of the shim, for which the command `verb` of `urunc` writes the file `seen`, waits until there is a file `go` and then goes on with `then`.
pub(crate) fn with_slow(containerd: &Containerd, verb: &str, then: &str) -> String {
    // The shim runs the `urunc` beside it.
    let shim = containerd.path("containerd-shim-urunc-v2");
    fs::copy(SHIM, &shim).unwrap();
    let wrapper = containerd.path("urunc");
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *\" {verb} \"*) if [ ! -e {seen} ]; then touch {seen}; while [ ! -e {go} ]; do sleep 0.1; done; {then} fi;; esac\n\
         exec {real} \"$@\"\n",
        real = env!("CARGO_BIN_EXE_urunc"),
        seen = containerd.path("seen").display(),
        go = containerd.path("go").display(),
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    shim.display().to_string()
}
