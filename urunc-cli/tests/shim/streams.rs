//! Where a container's streams go.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use libtest_mimic::Failed;

use crate::Test;
use crate::containerd::{Containerd, Need, describe, eventually, guest, plain, shown};
use crate::scene::executable;

const GUEST: &[Need] = &[Need::Root, Need::Containerd, Need::Guest];
const RUNC: &[Need] = &[Need::Root, Need::Containerd, Need::Runc];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "streams::a_file_gets_what_a_guest_prints", needs: GUEST, run: file },
    Test { name: "streams::a_logger_gets_what_a_guest_prints", needs: GUEST, run: logger },
    Test { name: "streams::a_terminal_is_copied", needs: GUEST, run: terminal },
    Test { name: "streams::input_reaches_a_process_and_ends", needs: RUNC, run: input },
    Test { name: "streams::much_output_is_complete", needs: RUNC, run: much },
];

fn file() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    let log = containerd.path("guest.log");
    containerd.detach(&["--log-uri", &format!("file://{}", log.display())], &guest(), "guest", &["hold"]);
    assert!(eventually(|| fs::read_to_string(&log).is_ok_and(|text| text.contains("holding"))));
    containerd.remove("guest");
    containerd.assert_clean();
    Ok(())
}

/// The logger gets the streams on descriptors 3 and 4, and says by closing descriptor 5 that it is ready.
fn logger() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    let (program, log) = (containerd.path("logger"), containerd.path("guest.log"));
    let script = "#!/bin/sh\nexec 5>&-\n{ echo \"$CONTAINER_NAMESPACE/$CONTAINER_ID\"; cat <&3; echo over; } >\"$2\"\n";
    executable(&program, script);
    let uri = format!("binary://{}?--to={}", program.display(), log.display());
    containerd.detach(&["--log-uri", &uri], &guest(), "guest", &["hold"]);
    assert!(eventually(|| fs::read_to_string(&log).is_ok_and(|text| text.contains("holding"))));
    containerd.remove("guest");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with(&format!("{}/guest\n", containerd.namespace)), "{text}");
    // Removing the container waits for the logger: nothing of what was printed is lost.
    assert!(text.ends_with("over\n"), "{text}");
    containerd.assert_clean();
    Ok(())
}

/// ctr wants a terminal of its own, which script(1) makes. `exec` makes `timeout` the leader of the terminal's session,
/// whatever the shell: else `timeout` moves ctr to the background, where changing the terminal's modes stops it.
fn terminal() -> Result<(), Failed> {
    let containerd = Containerd::start(&[guest()]);
    let ctr = containerd.command(&["run", "--rm", "--tty", "--runtime", crate::containerd::RUNTIME]);
    let mut words: Vec<String> = std::iter::once(ctr.get_program())
        .chain(ctr.get_args())
        .map(|word| word.to_str().unwrap().to_owned())
        .collect();
    words.extend([guest().reference(), "guest".into(), "hello".into(), "exit=3".into()]);
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &format!("exec {}", words.join(" ")), "/dev/null"]);
    script.envs(ctr.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = script.stdin(Stdio::null()).output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("word 2: exit=3"),
        "{}\n{}",
        describe(&output),
        containerd.log()
    );
    assert_eq!(output.status.code(), shown(3), "{}", describe(&output));
    containerd.assert_clean();
    Ok(())
}

fn input() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain()]);
    let reference = plain().reference();
    let arguments =
        ["run", "--rm", "--runtime", crate::containerd::RUNTIME, &reference, "c", "/bin/busybox", "cat"];
    let mut child =
        containerd.command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // ctr forgets to pass on an end of its input that comes before the container runs.
    assert!(eventually(|| containerd.status("c") == "RUNNING"));
    child.stdin.take().unwrap().write_all(b"piped in\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "piped in\n",
        "{}\n{}",
        describe(&output),
        containerd.log()
    );
    assert!(output.status.success());
    containerd.assert_clean();
    Ok(())
}

/// More than a fifo holds, up to the last byte before the process ends.
fn much() -> Result<(), Failed> {
    let containerd = Containerd::start(&[plain()]);
    let script = "busybox seq 1 100000";
    let output = containerd.run(&["--rm"], &plain(), "c", &["/bin/sh", "-c", script]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 100_000, "{}", output.status);
    assert!(text.ends_with("\n100000\n"));
    containerd.assert_clean();
    Ok(())
}
