//! A program in a monitor's place, for tests: prints as one line of JSON what it really got (arguments, environment,
//! descriptors with what they are, namespaces, ids, capabilities, seccomp mode), and ends with status 0.
//!
//! It reads `/proc`; where that is missing, the parts that come from it are null.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    path::Path,
};

use rustix::fs::FileType;
use serde_json::{Value, json};

fn main() -> std::io::Result<()> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    let found = json!({
        "args": std::env::args_os().skip(1).map(text).collect::<Vec<_>>(),
        "env": std::env::vars_os().map(|(k, v)| (text(k), text(v))).collect::<BTreeMap<_, _>>(),
        "cwd": std::env::current_dir().ok(),
        "descriptors": descriptors(),
        "namespaces": namespaces(),
        "status": status(),
    });
    writeln!(std::io::stdout(), "{found}")
}

/// Every open descriptor: what it is, and for a memory file what it holds.
fn descriptors() -> Option<BTreeMap<i32, Value>> {
    let numbers: Vec<i32> = fs::read_dir("/proc/self/fd")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // The directory that was just read is among the numbers, but no longer open.
    let describe = |fd: i32| {
        let path = format!("/proc/self/fd/{fd}");
        let target = fs::read_link(&path).ok()?;
        let mut contents = String::new();
        // A path is compared by components, a text by characters.
        if target.to_string_lossy().starts_with("/memfd:") {
            fs::File::open(&path).ok()?.read_to_string(&mut contents).ok()?;
        }
        let kind = format!("{:?}", kind(Path::new(&path))?);
        Some((fd, json!({ "kind": kind, "target": target, "contents": contents })))
    };
    Some(numbers.into_iter().filter_map(describe).collect())
}

fn kind(path: &Path) -> Option<FileType> {
    Some(FileType::from_raw_mode(rustix::fs::stat(path).ok()?.st_mode))
}

fn namespaces() -> Option<BTreeMap<String, String>> {
    let link = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), target.to_string_lossy().into_owned()))
    };
    Some(fs::read_dir("/proc/self/ns").ok()?.filter_map(link).collect())
}

/// Ids, groups, capabilities, seccomp and no_new_privs (proc_pid_status(5)).
fn status() -> Option<BTreeMap<String, String>> {
    const FIELDS: [&str; 12] = [
        "Pid",
        "PPid",
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ];
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    Some(
        fields
            .filter(|(name, _)| FIELDS.contains(name))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect(),
    )
}
