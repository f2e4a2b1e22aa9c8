//! What bad input gets: one sentence that names the cause and the remedy, exit status 1, and nothing left behind.

use std::fs;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::Test;
use crate::scene::{Need, Scene, passed};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "input::containerd_finds_the_error_in_the_log_file", needs: &[Need::Root], run: log_file },
    Test { name: "input::ids_that_are_no_ids", needs: &[Need::Root], run: ids },
    Test {
        name: "input::a_wrong_configuration_never_disarms_kill",
        needs: &[Need::Root],
        run: wrong_configuration,
    },
    Test { name: "input::the_command_line", needs: &[], run: command_line },
    Test { name: "input::a_command_line_that_is_wrong_is_in_the_log_file", needs: &[], run: usage_in_log },
];

/// style.md B.3: the last `error` record of the log file is what containerd's user sees.
fn log_file() -> Result<(), Failed> {
    let scene = Scene::new();
    let bundle = scene.fake(&[]);
    bundle.annotate("hypervisor", "bochs");
    let log = scene.path("log.json");
    let args =
        ["--log", log.to_str().unwrap(), "--log-format", "json", "create", "--bundle", bundle.str(), "c"];
    let said = scene.fails(&args);
    let text = fs::read_to_string(&log).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = records.iter().rfind(|record| record["level"] == "error").unwrap();
    assert!(said.ends_with(last["msg"].as_str().unwrap()), "{said} {last}");
    assert!(last["time"].as_str().unwrap().ends_with('Z'));
    passed()
}

/// B5: no id leads out of the state root.
fn ids() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(std::path::Path::new("/usr/bin/true"));
    let bundle = scene.fake(&[]);
    let characters = "is not one of A-Z a-z 0-9 _ + . -";
    for (id, says) in [
        ("", ": it is empty".to_owned()),
        (".", " \".\": it names a directory".to_owned()),
        ("..", " \"..\": it names a directory".to_owned()),
        ("../x", format!(" \"../x\": '/' {characters}")),
        ("a/b", format!(" \"a/b\": '/' {characters}")),
        ("a b", format!(" \"a b\": ' ' {characters}")),
        ("ä", format!(" \"ä\": 'ä' {characters}")),
        ("a\u{1}", format!(" \"a\\u{{1}}\": '\\u{{1}}' {characters}")),
        (&"x".repeat(1025), " of 1025 bytes: at most 1024 are allowed".to_owned()),
    ] {
        for args in
            [&["create", "--bundle", bundle.str(), id][..], &["delete", "--force", id], &["state", id]]
        {
            assert_eq!(scene.fails(args), format!("urunc: error: invalid container id{says}"));
        }
    }
    // A valid id, too long for a file's name.
    let long = "x".repeat(300);
    let message = scene.fails(&["create", "--bundle", bundle.str(), &long]);
    let why = "its id has 300 bytes, a file name at most 255";
    assert_eq!(message, format!("urunc: error: cannot create container {long}: {why}"));
    scene.assert_clean();
    passed()
}

/// What is wrong with a command line is said first, and then how it is to be.
const LINES: &[(&[&str], &str)] = &[
    (&["frobnicate"], "error: unrecognized subcommand 'frobnicate'"),
    (&["create"], "error: the following required arguments were not provided:"),
    (&["create", "--bundle"], "error: a value is required for '--bundle <DIR>' but none was supplied"),
    (&["create", "--colour", "c"], "error: unexpected argument '--colour' found"),
    (&["start", "a", "b"], "error: unexpected argument 'b' found"),
    (&["kill"], "error: the following required arguments were not provided:"),
    (&["kill", "c", "TERM", "now"], "error: unexpected argument 'now' found"),
    (&["list", "extra"], "error: unexpected argument 'extra' found"),
    (&["list", "--format", "yaml"], "error: invalid value 'yaml' for '--format <FORMAT>'"),
    (&["ps", "--format", "xml", "c"], "error: invalid value 'xml' for '--format <FORMAT>'"),
    (&["--log-format", "xml", "list"], "error: invalid value 'xml' for '--log-format <FORMAT>'"),
    (
        &["run", "--preserve-fds", "many", "c"],
        "error: invalid value 'many' for '--preserve-fds <N>': invalid digit found in string",
    ),
    (&["start", "none"], "urunc: error: container none does not exist"),
    (&["state", "none"], "urunc: error: container none does not exist"),
    (&["delete", "none"], "urunc: error: container none does not exist"),
    (&["ps", "none"], "urunc: error: container none does not exist"),
    (&["kill", "none", "TERM"], "urunc: error: container none does not exist"),
    (
        &["kill", "none", "SIGNIFICANT"],
        "urunc: error: unknown signal \"SIGNIFICANT\": give a number (1-31, 34-64) or a name such as TERM, SIGKILL or RTMIN+3",
    ),
    (
        &["kill", "none", "0"],
        "urunc: error: unknown signal \"0\": give a number (1-31, 34-64) or a name such as TERM, SIGKILL or RTMIN+3",
    ),
    (&["kill", "none", "-1"], "error: unexpected argument '-1' found"),
    (
        &["create", "--bundle", "/opt/none", "c"],
        "urunc: error: cannot open the bundle /opt/none: No such file or directory (os error 2)",
    ),
    (
        &["spec", "--bundle", "/opt/none"],
        "urunc: error: cannot write /opt/none/config.json; an existing one is not overwritten: No such file or directory (os error 2)",
    ),
    (
        &["--log", "/opt/none/log", "list"],
        "urunc: cannot open the log file /opt/none/log: No such file or directory (os error 2)",
    ),
];

fn command_line() -> Result<(), Failed> {
    let scene = Scene::new();
    let mut wrong = Vec::new();
    for (args, says) in LINES {
        let output = scene.urunc(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let first = text.lines().next().unwrap_or_default();
        let usage = first.starts_with("error: ");
        // Only what is wrong with the grammar is followed by the grammar.
        if output.status.code() != Some(1) || first != *says || (text.lines().count() > 1) != usage {
            wrong.push(format!("{args:?}: {text}"));
        }
    }
    scene.assert_clean();
    if !wrong.is_empty() {
        return Err(wrong.join("\n").into());
    }
    for args in [&["--help"][..], &["create", "--help"], &["--version"]] {
        let output = scene.urunc(args);
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}");
    }
    passed()
}

/// Whoever calls with a log file reads nothing else.
fn usage_in_log() -> Result<(), Failed> {
    let scene = Scene::new();
    let log = scene.path("log.json");
    let args = ["--log", log.to_str().unwrap(), "--log-format", "json", "create", "--bundle"];
    assert_eq!(scene.urunc(&args).status.code(), Some(1));
    let record: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(record["level"], "error");
    assert_eq!(record["msg"], "a value is required for '--bundle <DIR>' but none was supplied");
    passed()
}

/// What runs stays controllable, whatever has been written into the configuration meanwhile.
fn wrong_configuration() -> Result<(), Failed> {
    let scene = Scene::new();
    scene.fake_monitor(&scene.script("exec sleep 1000"));
    let bundle = scene.fake(&[]);
    scene.create_ok(&bundle, "c");
    scene.ok(&["start", "c"]);
    for wrong in ["[runtime]\nkwm = 1\n", "[monitors.qmeu]\npath = \"/x\"\n"] {
        scene.configure(wrong);
        assert!(scene.fails(&["create", "--bundle", bundle.str(), "d"]).contains("config.toml"), "{wrong}");
        assert_eq!(scene.status("c"), "running");
    }
    scene.ok(&["kill", "c", "KILL"]);
    scene.ok(&["delete", "--force", "c"]);
    scene.assert_clean();
    passed()
}
