//! The shim dies.

use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};

use crate::Test;
use crate::containerd::{Containerd, Need, eventually, guest, lives};

const GUEST: &[Need] = &[Need::Root, Need::Containerd, Need::Guest];

pub(crate) const TESTS: &[Test] =
    &[Test { name: "clean_up::a_killed_shim_leaves_nothing", needs: GUEST, run: killed }];

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
