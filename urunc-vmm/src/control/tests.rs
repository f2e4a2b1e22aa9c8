//! Conversations with monitors that answer rightly, wrongly, late and never. Real ones are in `tests/real.rs`.

use std::{
    io::{Read, Write},
    os::{fd::AsFd, unix::net::UnixListener},
    thread,
    time::Instant,
};

use proptest::prelude::*;

use super::*;

const LIMIT: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);
/// A peer that says `script` line by line, each after it was told something, and then hangs up.
fn peer(script: &'static [&'static str]) -> UnixStream {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        for line in script {
            let mut buffer = [0; 4096];
            if !line.starts_with("{\"QMP\"") && theirs.read(&mut buffer).unwrap_or(0) == 0 {
                return;
            }
            let _ = theirs.write_all(line.as_bytes());
        }
    });
    ours
}

fn qmp(script: &'static [&'static str]) -> Result<Control, ControlError> {
    Control::open(peer(script), Protocol::Qmp, LIMIT)
}

#[test]
fn qmp_skips_events_and_reports_refusals() {
    const GREETING_LINE: &str = concat!(
        r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}}, "capabilities": []}}"#,
        "\r\n"
    );
    let mut control = qmp(&[
        GREETING_LINE,
        "{\"return\": {}, \"id\": 1}\r\n",
        "{\"event\": \"POWERDOWN\", \"timestamp\": {}}\r\n{\"return\": {}, \"id\": 2}\r\n",
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\r\n",
        "{\"return\": {\"status\": \"internal-error\", \"running\": false}, \"id\": 4}\r\n",
    ])
    .unwrap();
    control.request_shutdown().unwrap();
    let error = control.pause().unwrap_err();
    assert_eq!(error.to_string(), r#"the monitor refused "stop": no"#);
    let info = control.info().unwrap();
    assert_eq!(info, Info { state: State::Other("internal-error".to_owned()), version: "10.0.2".to_owned() });
    assert!(matches!(control.resume(), Err(ControlError::Closed { .. })));
}

#[test]
fn a_peer_that_is_no_qemu_is_found_out() {
    for script in [&["{\"QMP\": 1}\n"][..], &["{\"QMP\"...\n"], &["{\"QMP\": {\"version\": {}}}\n"]] {
        assert!(matches!(qmp(script), Err(ControlError::Garbled { .. })), "{script:?}");
    }
}

#[test]
fn http_reads_status_and_body_across_several_answers() {
    let stream = peer(&[
        "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n",
        "HTTP/1.1 400 \r\ncontent-length: 21\r\n\r\n{\"fault_message\":\"x\"}",
        "HTTP/1.1 200 \r\nContent-Length: 69\r\n\r\n\
         {\"id\":\"a\",\"state\":\"Not started\",\"vmm_version\":\"1.17.0\",\"app_name\":\"\"}",
    ]);
    let mut control = Control::open(stream, Protocol::Firecracker, LIMIT).unwrap();
    control.pause().unwrap();
    let error = control.resume().unwrap_err();
    assert_eq!(error.to_string(), "the monitor refused \"PATCH /vm\": 400 {\"fault_message\":\"x\"}");
    let info = control.info().unwrap();
    assert_eq!(info, Info { state: State::NotStarted, version: "1.17.0".to_owned() });
    for answer in [
        &["HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n"][..],
        &["HTTP/1.1 200 \r\nContent-Length: 99999999\r\n\r\n"],
        &["SSH-2.0\r\n\r\n"],
        &["HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n[]"],
    ] {
        let mut control = Control::open(peer(answer), Protocol::Firecracker, LIMIT).unwrap();
        assert!(matches!(control.info(), Err(ControlError::Garbled { .. })), "{answer:?}");
        assert!(matches!(control.info(), Err(ControlError::Spent { .. })), "{answer:?}");
    }
}

/// A pause that timed out was answered when the guest was to run on, which then was taken for done.
#[test]
fn a_late_answer_is_not_taken_for_that_to_the_next_request() {
    for protocol in [Protocol::Firecracker, Protocol::CloudHypervisor] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut control = Control::open(ours, protocol, SHORT).unwrap();
        assert!(matches!(control.pause(), Err(ControlError::Silent { .. })));
        theirs.write_all(b"HTTP/1.1 204 \r\n\r\nHTTP/1.1 204 \r\n\r\n").unwrap();
        let error = control.resume().unwrap_err();
        assert!(matches!(error, ControlError::Spent { .. }), "{error}");
        assert!(error.to_string().contains("open another"), "{error}");
    }
}

#[test]
fn an_answer_with_another_id_is_none() {
    const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 9}}}}\n";
    for answer in
        [&[GREETING, "{\"return\": {}, \"id\": 7}\n"][..], &[GREETING, "{\"error\": {}, \"id\": \"1\"}\n"]]
    {
        let error = qmp(answer).unwrap_err();
        assert!(matches!(error, ControlError::Garbled { .. }), "{error}");
    }
}

/// "No unbounded wait" of the design, for a peer that never answers and one that never stops.
#[test]
fn a_silent_peer_and_an_endless_answer_are_given_up() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let error = Control::open(ours, Protocol::Qmp, SHORT).unwrap_err();
    assert_eq!(error.to_string(), "the monitor did not answer \"greeting\" within 50ms");

    for protocol in [Protocol::Firecracker, Protocol::CloudHypervisor] {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Control::open(ours, protocol, SHORT).unwrap().info().unwrap_err();
        assert!(matches!(error, ControlError::Silent { .. }), "{error}");
    }

    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let endless = thread::spawn(move || while theirs.write_all(&[b'x'; 4096]).is_ok() {});
    let error = Control::open(ours, Protocol::Qmp, LIMIT).unwrap_err();
    assert!(matches!(error, ControlError::Garbled { .. }), "{error}");
    endless.join().unwrap();

    // Not one read that takes too long, but many that take no time.
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let trickle = thread::spawn(move || {
        while theirs.write_all(b"{\"event\": \"X\"}\n").is_ok() {
            thread::yield_now();
        }
    });
    let begun = Instant::now();
    let error = Control::open(ours, Protocol::Qmp, SHORT).unwrap_err();
    assert!(matches!(error, ControlError::Silent { .. } | ControlError::Garbled { .. }), "{error}");
    assert!(begun.elapsed() < LIMIT);
    trickle.join().unwrap();
}

#[test]
fn a_listener_that_accepts_nobody_does_not_block_a_connect_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    // The standard library asks for room for thousands, more than this process may have open.
    rustix::net::listen(&listener, 1).unwrap();
    let mut streams = Vec::new();
    let error = loop {
        match connect(&path, SHORT) {
            Ok(stream) => streams.push(stream),
            Err(error) => break error,
        }
        assert!(streams.len() < 100);
    };
    assert!(matches!(error, ControlError::Connect { .. }));
    let missing = connect(&directory.path().join("nothing"), SHORT).unwrap_err();
    assert!(missing.to_string().contains("nothing"), "{missing}");
}

/// A hostile monitor can put anything at the path of its socket.
#[test]
fn only_the_monitors_own_socket_below_its_root_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let (root, outside) = (directory.path().join("root"), directory.path().join("outside"));
    std::fs::create_dir_all(root.join("run")).unwrap();
    let _ours = UnixListener::bind(root.join("run/ours")).unwrap();
    let _outside = UnixListener::bind(&outside).unwrap();
    std::fs::write(root.join("run/file"), "").unwrap();
    std::os::unix::fs::symlink(&outside, root.join("run/link")).unwrap();
    std::os::unix::fs::symlink("run", root.join("also")).unwrap();

    let opened = std::fs::File::open(&root).unwrap();
    let me = rustix::process::getpid();
    let below = |path: &str, pid| {
        connect_below(opened.as_fd(), Path::new(path), pid, LIMIT).map_err(|e| e.to_string())
    };
    below("run/ours", me).unwrap();
    below("/run/ours", me).unwrap();
    below("/../run/ours", me).unwrap();
    for (path, pid, reason) in [
        ("run/link", me, "a link"),
        ("also/ours", me, "a link"),
        ("run/file", me, "no socket"),
        ("run/missing", me, "cannot connect"),
        ("run/ours", rustix::process::Pid::INIT, "listens, not 1"),
    ] {
        let error = below(path, pid).unwrap_err();
        assert!(error.contains(reason), "{path}: {error}");
    }
}

proptest! {
    #[test]
    fn no_answer_makes_a_client_panic(answer in proptest::collection::vec(any::<u8>(), 0..300)) {
        for protocol in [Protocol::Qmp, Protocol::Firecracker, Protocol::CloudHypervisor] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(&answer).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            if let Ok(mut control) = Control::open(ours, protocol, LIMIT) {
                let _ = control.info();
            }
        }
    }
}
