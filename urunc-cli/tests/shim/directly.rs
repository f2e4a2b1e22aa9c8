//! A shim spoken to as containerd does, and one whose runtime is slow where a test wants it to be.

use containerd_shim_protos::ttrpc::context::{self, Context};
use containerd_shim_protos::{Client, TaskClient};

use crate::containerd::{Containerd, SHIM};
use crate::scene::{copy_executable, executable};

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
    let script = format!(
        "if [ ! -e {seen} ]; then touch {seen}; while [ ! -e {go} ]; do sleep 0.1; done; {then} fi",
        seen = containerd.path("seen").display(),
        go = containerd.path("go").display(),
    );
    with_script(containerd, verb, &script)
}

/// A copy of the shim, for which the command `verb` of `urunc` on the container `id` goes on until the container's process has ended, and the shim has had
/// time to notice.
pub(crate) fn with_late(containerd: &Containerd, verb: &str, id: &str) -> String {
    let script = format!(
        "{real} \"$@\"; status=$?; while grep -q . /proc/$(cat {bundle}/init.pid)/cmdline; do sleep 0.05; done; sleep 0.3; exit $status",
        real = env!("CARGO_BIN_EXE_urunc"),
        bundle = containerd.bundle(id).display(),
    );
    with_script(containerd, verb, &script)
}

/// A copy of the shim, which runs the `urunc` beside it: `script` first, if the command is `verb`.
fn with_script(containerd: &Containerd, verb: &str, script: &str) -> String {
    let shim = containerd.path("containerd-shim-urunc-v2");
    copy_executable(SHIM, &shim);
    let real = env!("CARGO_BIN_EXE_urunc");
    let text = format!("#!/bin/sh\ncase \" $* \" in *\" {verb} \"*) {script};; esac\nexec {real} \"$@\"\n");
    executable(&containerd.path("urunc"), &text);
    shim.display().to_string()
}
