//! Terminals: by console socket, as containerd and Docker ask for them, and in the foreground.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use libtest_mimic::Failed;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use serde_json::json;

use crate::Test;
use crate::scene::{Bundle, Need, Scene, describe, eventually, passed, reap};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "console::a_pidfd_is_sent_where_it_is_asked_for", needs: &[Need::Root], run: pidfd },
    Test { name: "console::the_master_arrives_before_create_returns", needs: &[Need::Root], run: socket },
    Test {
        name: "console::a_terminal_and_its_socket_go_together",
        needs: &[Need::Root],
        run: contradictions,
    },
    Test {
        name: "console::a_closed_output_does_not_abandon_the_container",
        needs: &[Need::Root],
        run: closed_output,
    },
    Test { name: "console::unread_input_does_not_make_run_deaf", needs: &[Need::Root], run: deaf },
    Test {
        name: "console::a_monitor_never_gets_the_users_own_terminal",
        needs: &[Need::Root],
        run: own_terminal,
    },
    Test {
        name: "console::an_interrupt_during_create_leaves_nothing",
        needs: &[Need::Root],
        run: interrupted,
    },
    Test { name: "console::run_leaves_a_successor_of_its_name_alone", needs: &[Need::Root], run: successor },
    Test { name: "console::run_connects_its_own_terminal", needs: &[Need::Root], run: foreground },
];

/// A bundle with a terminal whose monitor says what it sees and repeats one line.
fn talker(scene: &Scene) -> Bundle {
    scene.fake_monitor(&scene.script(
        "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo terminal; stty size; read line; echo \"got $line\"; exec sleep 1000",
    ));
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["consoleSize"] = json!({"height": 40, "width": 100});
    });
    bundle
}

fn receive_master(listener: &UnixListener) -> std::fs::File {
    receive(listener, b"/dev/")
}

/// A descriptor that comes with a text that begins like this.
fn receive(listener: &UnixListener, text: &[u8]) -> std::fs::File {
    let (stream, _) = listener.accept().unwrap();
    let mut name = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message =
        recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    assert!(name[..message.bytes].starts_with(text), "{:?}", &name[..message.bytes]);
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.next().unwrap().next().unwrap().into()
}

fn read_until(from: &mut std::fs::File, text: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 256];
    while !seen.contains(text) {
        let count = from.read(&mut buffer).unwrap();
        assert!(count > 0, "the terminal ended after {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}

/// B3, design.md section 12.5: containerd blocks in its receive as soon as create has returned.
fn socket() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = talker(&scene);
    let path = scene.path("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let args = ["create", "--bundle", bundle.str(), "--console-socket", path.to_str().unwrap(), "c"];
    // No output of create's own may keep a pipe open: the container has the terminal for its streams.
    let output = scene.command(&args).output().unwrap();
    assert!(output.status.success(), "{}", describe(&output));
    listener.set_nonblocking(true).unwrap();
    let mut master = receive_master(&listener);
    scene.ok(&["start", "c"]);
    let pid = scene.pid("c");
    let seen = read_until(&mut master, "100");
    assert!(seen.contains("terminal") && seen.contains("40 100"), "{seen:?}");
    master.write_all(b"hello\n").unwrap();
    read_until(&mut master, "got hello");
    scene.ok(&["kill", "c", "KILL"]);
    reap(pid);
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

fn pidfd() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    let path = scene.path("pidfd.sock");
    let nobody = scene.create_with(&bundle, &["--pidfd-socket", path.to_str().unwrap()], "c");
    assert!(!nobody.status.success());
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(said.contains("cannot send the container's pidfd to the socket"), "{said}");
    let listener = UnixListener::bind(&path).unwrap();
    let output = scene.create_with(&bundle, &["--pidfd-socket", path.to_str().unwrap()], "c");
    assert!(output.status.success(), "{}", describe(&output));
    listener.set_nonblocking(true).unwrap();
    let pidfd = receive(&listener, b"pidfd");
    let info =
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&pidfd)));
    assert!(info.unwrap().contains(&format!("Pid:\t{}\n", scene.pid("c"))));
    scene.ok(&["delete", "c"]);
    scene.assert_clean();
    passed()
}

fn contradictions() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = talker(&scene);
    let message = scene.fails(&["create", "--bundle", bundle.str(), "c"]);
    assert!(message.contains("--console-socket"), "{message}");
    let nobody = scene.path("nobody.sock");
    let message =
        scene.fails(&["create", "--bundle", bundle.str(), "--console-socket", nobody.to_str().unwrap(), "c"]);
    assert!(message.contains("nobody.sock"), "{message}");
    bundle.edit(|spec| spec["process"]["terminal"] = json!(false));
    let message =
        scene.fails(&["create", "--bundle", bundle.str(), "--console-socket", nobody.to_str().unwrap(), "c"]);
    assert!(message.contains("process.terminal is not true"), "{message}");
    scene.assert_clean();
    passed()
}

fn foreground() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = talker(&scene);
    // A terminal for urunc itself, as a user's shell has one.
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave: OwnedFd =
        ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    let size = rustix::termios::Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&slave, size).unwrap();
    let before = rustix::termios::tcgetattr(&slave).unwrap();
    let copy = || Stdio::from(slave.try_clone().unwrap());
    let mut child = scene
        .command(&["run", "--bundle", bundle.str(), "c"])
        .stdin(copy())
        .stdout(copy())
        .stderr(copy())
        .spawn()
        .unwrap();
    let mut master: std::fs::File = master.into();
    let seen = read_until(&mut master, "77");
    assert!(seen.contains("terminal") && seen.contains("33 77"), "{seen:?}");
    master.write_all(b"hello\r").unwrap();
    read_until(&mut master, "got hello");
    assert!(eventually(|| scene.status("c") == "running"));
    scene.ok(&["kill", "c", "KILL"]);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    let after = rustix::termios::tcgetattr(slave.as_fd()).unwrap();
    assert_eq!(before.local_modes, after.local_modes, "the terminal's modes are put back");
    scene.assert_clean();
    passed()
}

/// `urunc run | head -1`: the reader goes, the container and its exit status stay.
fn closed_output() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("while :; do echo x || :; done"));
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| spec["process"]["terminal"] = json!(true));
    let mut child =
        scene.command(&["run", "--bundle", bundle.str(), "c"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 2];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    // The pipe is closed now. Nobody empties the terminal any more, so the monitor may block; it must still be ours.
    assert!(eventually(|| scene.urunc(&["state", "c"]).status.success()));
    scene.urunc(&["kill", "c", "KILL"]);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    scene.assert_clean();
    passed()
}

/// A guest that does not read must not keep signals from being seen.
fn deaf() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    bundle.edit(|spec| spec["process"]["terminal"] = json!(true));
    let mut run = scene.command(&["run", "--bundle", bundle.str(), "c"]);
    let mut child = run.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    assert!(eventually(|| scene.urunc(&["state", "c"]).stdout.windows(7).any(|word| word == b"running")));
    let writer = std::thread::spawn(move || drop(stdin.write_all(&[b'x'; 200_000])));
    let pid = rustix::process::Pid::from_child(&child);
    // Gets through although the terminal is full; the fake monitor is an spt, which is killed on TERM.
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    writer.join().unwrap();
    scene.assert_clean();
    passed()
}

/// A pair of master and slave for urunc itself, as a user's shell has them.
fn shell() -> (std::fs::File, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    (master.into(), slave)
}

/// QEMU makes its standard input raw if that is a terminal: an interrupt from the keyboard would not reach us, and after
/// a kill the shell would be left with that terminal.
fn own_terminal() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(
        &scene.script("[ -t 0 ] && echo is a terminal || echo no terminal; read line; echo got $line"),
    );
    let bundle = scene.fake(&[]);
    let (mut master, slave) = shell();
    let output = std::fs::File::create(scene.path("console")).unwrap();
    let mut run = scene.command(&["run", "--bundle", bundle.str(), "c"]);
    let mut child = run.stdin(Stdio::from(slave)).stdout(output).spawn().unwrap();
    assert!(eventually(|| scene.console().contains("no terminal")), "{}", scene.console());
    master.write_all(b"hello\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(scene.console().contains("got hello"), "{}", scene.console());
    scene.assert_clean();
    passed()
}

fn interrupted() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    for round in 0..20u64 {
        // In the background shells let their children ignore the keyboard's signals; that must not matter.
        let mut run = std::process::Command::new("sh");
        run.args(["-c", "trap '' INT; exec \"$@\"", "sh", crate::scene::URUNC, "--root"]).arg(scene.root());
        run.args(["run", "--bundle", bundle.str(), "c"]).env("URUNC_CONFIG_FILE", scene.path("config.toml"));
        let mut child = run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2 + round));
        let pid = rustix::process::Pid::from_child(&child);
        // More than once: before urunc has taken the signal over, the shell's choice holds.
        while child.try_wait().unwrap().is_none() {
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let clean = eventually(|| scene.leftovers().is_empty());
        assert!(clean, "round {round}: {:#?}", scene.leftovers());
    }
    passed()
}

/// Somebody deletes our container and creates another one of its name before we notice.
fn successor() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    let mut child = scene.command(&["run", "--bundle", bundle.str(), "c"]).spawn().unwrap();
    assert!(eventually(|| scene.urunc(&["state", "c"]).stdout.windows(7).any(|word| word == b"running")));
    // `run` says `running` before it lets go of the lock, which it must not hold while it is stopped. This waits for the lock.
    let again = scene.urunc(&["start", "c"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("running"), "{again:?}");
    let run = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(run, rustix::process::Signal::STOP).unwrap();
    scene.ok(&["delete", "--force", "c"]);
    scene.create_ok(&bundle, "c");
    let successor = scene.pid("c");
    rustix::process::kill_process(run, rustix::process::Signal::CONT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    assert_eq!((scene.status("c").as_str(), scene.pid("c")), ("created", successor));
    passed()
}
