//! `Create` is a transaction (F4, B50): what may befall it under containerd that needs a machine of its own. Afterwards containerd, the process table,
//! mounts and the state root agree. `tests/shim/create.rs` has the rest.

use std::process::Output;

use libtest_mimic::Failed;

use crate::Test;
use crate::containerd::{RUNTIME, describe, eventually, guest};
use crate::image::Image;
use crate::kubelet::Node;
use crate::need::Need;

const GUEST: &[Need] = &[Need::Root, Need::Cri, Need::Runc, Need::Guest];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "create::a_rootfs_that_the_guest_cannot_have_is_refused", needs: GUEST, run: rootfs_mode },
    Test { name: "create::a_full_state_root_leaves_nothing", needs: GUEST, run: full_state_root },
    Test { name: "create::a_full_bundle_leaves_nothing", needs: GUEST, run: full_bundle },
    Test {
        name: "create::a_shim_killed_before_the_runtime_leaves_nothing",
        needs: GUEST,
        run: killed_before,
    },
    Test {
        name: "create::a_shim_killed_during_the_runtime_leaves_nothing",
        needs: GUEST,
        run: killed_during,
    },
    Test { name: "create::a_shim_killed_after_the_runtime_leaves_nothing", needs: GUEST, run: killed_after },
    Test {
        name: "create::a_containerd_killed_meanwhile_agrees_when_it_is_back",
        needs: GUEST,
        run: restarted,
    },
];

const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task";

fn ctr(node: &Node, words: &[&str]) -> Output {
    node.world.output(&[&["ctr", "--namespace", "k8s.io"], words].concat())
}

/// `ctr run --detach` of a container named `guest`.
fn run(node: &Node, image: &Image) -> Output {
    ctr(node, &["run", "--detach", "--runtime", RUNTIME, &image.reference(), "guest", "hold"])
}

fn tasks(node: &Node) -> String {
    let list = ctr(node, &["task", "ls", "--quiet"]);
    assert!(list.status.success(), "{}", describe(&list));
    String::from_utf8(list.stdout).unwrap()
}

/// Nothing is left, and the same container can be made once the cause has been removed.
fn assert_undone(node: &Node, before: &[String], heal: impl FnOnce()) {
    assert!(eventually(|| tasks(node).is_empty()), "{}\n{}", tasks(node), node.world.log());
    ctr(node, &["containers", "rm", "guest"]);
    node.world.assert_as_before(before);
    heal();
    let output = run(node, &guest());
    assert!(output.status.success(), "{}\n{}", describe(&output), node.world.log());
    remove(node, before);
}

fn remove(node: &Node, before: &[String]) {
    ctr(node, &["task", "rm", "--force", "guest"]);
    let removed = ctr(node, &["containers", "rm", "guest"]);
    assert!(removed.status.success(), "{}\n{}", describe(&removed), node.world.log());
    node.world.assert_as_before(before);
}

fn rootfs_mode() -> Result<(), Failed> {
    let image = Image { name: "demanding", more: &[("mountRootfs", "true")], ..guest() };
    let node = Node::start(&[image.clone(), guest()]);
    let before = node.world.inventory();
    let output = run(&node, &image);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("root file system"), "{said}");
    assert_undone(&node, &before, || {});
    Ok(())
}

/// Mounts a file system that has no room left.
fn full(node: &Node, place: &str) {
    node.world.ok(&["mkdir", "-p", place]);
    node.world.ok(&["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place]);
    node.world.output(&["dd", "if=/dev/zero", &format!("of={place}/fill"), "bs=1k"]);
}

fn full_state_root() -> Result<(), Failed> {
    let node = Node::start(&[guest()]);
    full(&node, "/run/containerd/urunc");
    let before = node.world.inventory();
    let output = run(&node, &guest());
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"), "{}", describe(&output));
    node.world.ok(&["rm", "/run/containerd/urunc/fill"]);
    let before: Vec<String> =
        before.into_iter().filter(|line| !line.ends_with("/run/containerd/urunc/fill")).collect();
    assert_undone(&node, &before, || {});
    Ok(())
}

/// The bundle's disk fills up after containerd has written the bundle: the runtime cannot leave its pid there, nor its log.
fn full_bundle() -> Result<(), Failed> {
    let node = Node::start(&[guest()]);
    node.world.ok(&["mkdir", "-p", TASKS]);
    node.world.ok(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", TASKS]);
    let before = node.world.inventory();
    node.world.wrap_urunc(&format!(
        "case \" $* \" in *\" create \"*) dd if=/dev/zero of={TASKS}/fill bs=1k;; esac\nexec real-urunc \"$@\""
    ));
    let output = run(&node, &guest());
    assert!(!output.status.success(), "{}", describe(&output));
    node.world.unwrap_urunc();
    assert_undone(&node, &before, || drop(node.world.ok(&["rm", &format!("{TASKS}/fill")])));
    Ok(())
}

/// The wrapper kills the shim, its parent, where the script says, and nobody but containerd's call of `delete` can clean up.
fn killed(script: &str) -> Node {
    let node = Node::start(&[guest()]);
    let before = node.world.inventory();
    node.world.wrap_urunc(&format!(
        "case \" $* \" in *\" create \"*) ;; *) exec real-urunc \"$@\";; esac\nshim=$PPID\n{script}\n"
    ));
    let output = run(&node, &guest());
    assert!(!output.status.success(), "{}", describe(&output));
    // The wrapper has done its work, or has been stopped from doing it.
    assert!(eventually(|| !node.world.processes().iter().any(|line| line.contains("/usr/local/bin/urunc"))));
    node.world.unwrap_urunc();
    assert_undone(&node, &before, || {});
    node
}

/// A creation that is orphaned must not go on after `delete` has seen that there is nothing.
fn killed_before() -> Result<(), Failed> {
    let node = killed(&format!(
        "kill -KILL $shim; while [ -e {TASKS}/k8s.io/guest ]; do sleep 0.05; done; touch /run/went-on; exec real-urunc \"$@\""
    ));
    assert!(!node.world.at("/run/went-on").exists());
    Ok(())
}

/// The container is there already, and the creation still runs.
fn killed_during() -> Result<(), Failed> {
    killed("real-urunc \"$@\" & kill -KILL $shim; wait");
    Ok(())
}

fn killed_after() -> Result<(), Failed> {
    killed("real-urunc \"$@\"; kill -KILL $shim; exit 0");
    Ok(())
}

/// Whatever became of the container, containerd knows of it and can remove it.
fn restarted() -> Result<(), Failed> {
    let node = Node::start(&[guest()]);
    let before = node.world.inventory();
    node.world.wrap_urunc(
        "case \" $* \" in *\" create \"*) touch /run/creating; while [ -e /run/creating ]; do sleep 0.05; done;; esac\n\
         exec real-urunc \"$@\"",
    );
    let reference = guest().reference();
    let words = [
        "ctr",
        "--namespace",
        "k8s.io",
        "run",
        "--detach",
        "--runtime",
        RUNTIME,
        &reference,
        "guest",
        "hold",
    ];
    let mut client = node.world.command(&words).spawn().unwrap();
    assert!(eventually(|| node.world.at("/run/creating").exists()));
    node.world.kill_daemon();
    client.wait().unwrap();
    node.launch();
    std::fs::remove_file(node.world.at("/run/creating")).unwrap();
    assert!(eventually(
        || !node.world.processes().iter().any(|line| line.contains("--pid-file")) || !tasks(&node).is_empty()
    ));
    node.world.unwrap_urunc();
    remove(&node, &before);
    Ok(())
}
