//! containerd is killed and comes back while containers run.

use libtest_mimic::Failed;

use crate::Test;
use crate::containerd::{Containerd, Need, describe, eventually, guest, lives, shown};

const GUEST: &[Need] = &[Need::Root, Need::Containerd, Need::Guest];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "restart::containers_in_every_state_are_found_again", needs: GUEST, run: states },
    Test { name: "restart::an_end_that_containerd_missed_is_told", needs: GUEST, run: missed_end },
];

/// Upstream issue 599: after a restart, containers fell back to "created".
fn states() -> Result<(), Failed> {
    let mut containerd = Containerd::start(&[guest()]);
    containerd.detach(&[], &guest(), "running", &["hold"]);
    containerd.detach(&[], &guest(), "stopped", &["hello", "exit=5"]);
    assert!(eventually(|| containerd.status("stopped") == "STOPPED"));
    let before = containerd.task("running").unwrap();
    containerd.kill();
    assert!(lives(before.0));
    containerd.launch();
    assert_eq!(containerd.task("running"), Some(before));
    assert_eq!(containerd.status("stopped"), "STOPPED");
    let removed = containerd.ctr(&["task", "rm", "stopped"]);
    let said = describe(&removed);
    assert!(said.contains(&format!("exit code {}", shown(5).unwrap())), "{said}");
    containerd.ok(&["containers", "rm", "stopped"]);
    containerd.remove("running");
    containerd.assert_clean();
    Ok(())
}

fn missed_end() -> Result<(), Failed> {
    let mut containerd = Containerd::start(&[guest()]);
    containerd.detach(&[], &guest(), "guest", &["hold"]);
    let (pid, _) = containerd.task("guest").unwrap();
    containerd.kill();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert!(eventually(|| !lives(pid)));
    containerd.launch();
    assert!(eventually(|| containerd.status("guest") == "STOPPED"), "{}", containerd.log());
    let removed = describe(&containerd.ctr(&["task", "rm", "guest"]));
    assert!(removed.contains("137"), "{removed}");
    containerd.ok(&["containers", "rm", "guest"]);
    containerd.assert_clean();
    Ok(())
}
