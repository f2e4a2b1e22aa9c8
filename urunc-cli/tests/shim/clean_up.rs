//! The shim dies.

use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};

use crate::Test;
use crate::containerd::{Containerd, Need, eventually, guest, lives, plain};

const GUEST: &[Need] = &[Need::Root, Need::Containerd, Need::Guest];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "clean_up::a_killed_shim_leaves_nothing", needs: GUEST, run: killed },
    Test {
        name: "clean_up::a_killed_shim_leaves_nothing_of_a_pod",
        needs: &[Need::Root, Need::Containerd, Need::Guest, Need::Runc],
        run: killed_with_two,
    },
];

fn killed() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    containerd.detach(&[], &guest(), "guest", &["hold"]);
    let (monitor, _) = containerd.task("guest").unwrap();
    let (shim, words) = containerd.shims().first().cloned().unwrap();
    let socket = Containerd::socket(&words);
    assert!(socket.exists());
    kill_process(Pid::from_raw(shim).unwrap(), Signal::KILL).unwrap();
    assert!(eventually(|| !lives(monitor)), "{}", containerd.log());
    containerd.assert_clean();
    assert!(eventually(|| !socket.exists()));
    // containerd agrees.
    assert!(eventually(|| containerd.task("guest").is_none_or(|(_, status)| status == "STOPPED")));
    Ok(())
}

/// containerd cleans up after each of the containers of which the shim is gone.
fn killed_with_two() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest(), plain()]);
    let pod = ["--annotation", "io.kubernetes.cri.sandbox-id=pause"];
    containerd.detach(&pod, &plain(), "pause", &["/bin/sh", "-c", "while busybox sleep 1; do :; done"]);
    containerd.detach(&pod, &guest(), "guest", &["hold"]);
    let pids = ["pause", "guest"].map(|id| containerd.task(id).unwrap().0);
    let [(shim, words)] = &*containerd.shims() else { panic!("{:?}", containerd.shims()) };
    kill_process(Pid::from_raw(*shim).unwrap(), Signal::KILL).unwrap();
    assert!(eventually(|| !pids.into_iter().any(lives)), "{}", containerd.log());
    containerd.assert_clean();
    assert!(eventually(|| !Containerd::socket(words).exists()));
    Ok(())
}
