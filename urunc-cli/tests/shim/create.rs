//! `Create` is a transaction (F4, B50): each of its steps is made to fail, and nothing is left.

use std::fs;

use libtest_mimic::Failed;

use crate::Test;
use crate::containerd::{Containerd, Need, describe, eventually, guest};
use crate::scene::{copy_executable, executable};

const GUEST: &[Need] = &[Need::Root, Need::Containerd, Need::Guest];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "create::a_missing_monitor_is_named_and_nothing_is_left", needs: GUEST, run: no_monitor },
    Test {
        name: "create::a_wrong_configuration_is_named_and_nothing_is_left",
        needs: GUEST,
        run: wrong_config,
    },
    Test { name: "create::a_rootfs_that_cannot_be_mounted_leaves_nothing", needs: GUEST, run: no_rootfs },
    Test { name: "create::a_logger_that_cannot_be_run_leaves_nothing", needs: GUEST, run: no_logger },
    Test {
        name: "create::a_failure_after_the_container_was_made_undoes_it",
        needs: GUEST,
        run: after_the_inner_create,
    },
    Test { name: "create::an_id_can_be_used_again_after_a_failure", needs: GUEST, run: again },
];

/// Runs a guest that must fail to be created for a reason that is told, and looks for what is left.
fn fails(containerd: &Containerd, options: &[&str], reason: &str) {
    let output = containerd.run(options, &guest(), "guest", &["hold"]);
    assert!(!output.status.success(), "{}", describe(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(reason), "{said}\n{}", containerd.log());
    containerd.ctr(&["containers", "rm", "guest"]);
    assert_eq!(containerd.status("guest"), "none");
    containerd.assert_clean();
}

fn no_such_monitor(containerd: &Containerd) {
    containerd.configure(&format!("[monitors.{}]\npath = \"/nonexistent/monitor\"\n", guest().monitor));
}

fn no_monitor() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    no_such_monitor(&containerd);
    fails(&containerd, &["--rm"], "/nonexistent/monitor");
    Ok(())
}

fn wrong_config() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    containerd.configure("no such = thing\n");
    fails(&containerd, &["--rm"], "config.toml is wrong in line 1");
    Ok(())
}

fn no_rootfs() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    containerd.ok(&[
        "containers",
        "create",
        "--runtime",
        crate::containerd::RUNTIME,
        &guest().reference(),
        "guest",
    ]);
    // What the snapshotter will ask to be mounted is not there any more.
    fs::remove_dir_all(containerd.path("root/io.containerd.snapshotter.v1.overlayfs/snapshots")).unwrap();
    let output = containerd.ctr(&["task", "start", "guest"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cannot mount the rootfs"),
        "{}",
        describe(&output)
    );
    containerd.assert_clean();
    Ok(())
}

fn no_logger() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    fails(&containerd, &["--detach", "--log-uri", "binary:///nonexistent/logger"], "/nonexistent/logger");
    Ok(())
}

/// F4 itself: `urunc create` has succeeded, and the shim fails afterwards. Here the pid file has become unreadable.
fn after_the_inner_create() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    let real = env!("CARGO_BIN_EXE_urunc");
    // The shim runs the `urunc` beside it.
    let shim = containerd.path("containerd-shim-urunc-v2");
    copy_executable(crate::containerd::SHIM, &shim);
    let wrapper = containerd.path("urunc");
    let script = format!(
        "#!/bin/sh\n{real} \"$@\" || exit\ncase \" $* \" in *\" create \"*) ls {root} >>{seen}; echo nonsense >{bundle}/init.pid;; esac\n",
        root = containerd.state_root().display(),
        seen = containerd.path("seen").display(),
        bundle = containerd.bundle("guest").display(),
    );
    executable(&wrapper, &script);
    let shim = shim.display().to_string();
    fails(&containerd, &["--rm", "--runtime", &shim], "cannot understand the pid file");
    // The container had really been there.
    assert_eq!(fs::read_to_string(containerd.path("seen")).unwrap().trim(), "guest");
    Ok(())
}

fn again() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    no_such_monitor(&containerd);
    fails(&containerd, &["--rm"], "/nonexistent/monitor");
    containerd.configure("");
    containerd.detach(&[], &guest(), "guest", &["hold"]);
    assert!(eventually(|| containerd.status("guest") == "RUNNING"));
    containerd.remove("guest");
    containerd.assert_clean();
    Ok(())
}
