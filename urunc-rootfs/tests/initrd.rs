//! Composed initrds, read back by an unpacker as strict as the guests' kernels, and by the real `cpio`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::process::{Command, Stdio};

use common::have_program;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use urunc_rootfs::initrd::{Addition, Content, Dialect, InitrdError, compose};

fn main() -> std::process::ExitCode {
    common::run(tests![
        files_are_added_with_the_directories_on_their_way,
        directories_that_exist_keep_their_mode,
        links_of_the_image_are_followed_and_kept,
        a_directory_over_a_link_is_where_the_link_leads,
        a_directory_of_a_single_archive_stays_before_what_is_in_it,
        a_file_with_several_names_is_never_written_through,
        a_compressed_initrd_ends_with_a_zero_word,
        an_unaligned_initrd_is_padded_before_the_second_archive,
        without_additions_the_initrd_is_unchanged,
        a_single_archive_stays_single_and_replaces_what_was_there,
        inode_numbers_are_never_shared,
        a_compressed_initrd_takes_additions_only_where_they_cannot_break_it,
        what_cannot_be_added_is_refused,
        hostile_archives_are_refused_or_survived,
        the_real_cpio_unpacks_what_was_composed,
        the_real_cpio_s_archives_are_understood,
        whatever_is_added_is_there_and_nothing_else_is_lost,
    ])
}

fn addition(path: &str, content: Content) -> Addition {
    Addition { path: path.into(), content, mode: 0o640, uid: 3, gid: 4, mtime: 5 }
}

fn file(path: &str, content: &str) -> Addition {
    addition(path, Content::File(content.as_bytes().to_vec()))
}

fn composed(base: &[u8], additions: &[Addition], dialect: Dialect) -> Result<Vec<u8>, InitrdError> {
    let mut out = Vec::new();
    compose(&mut Cursor::new(base), additions, dialect, &mut out).map(|()| out)
}

/// A record as the documentation has it, written independently of the crate.
fn record(name: &str, mode: u32, content: &[u8], inode: u32, links: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let (size, name_size) = (content.len(), name.len() + 1);
    write!(out, "070701{inode:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{size:08x}", 0, 0, 0).unwrap();
    write!(out, "{:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}{name}\0", 0, 0, 0, 0, 0).unwrap();
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(content);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn archive(records: &[(&str, u32, &str)]) -> Vec<u8> {
    let numbered = records.iter().zip(1..);
    let mut out: Vec<u8> = numbered
        .flat_map(|((name, mode, content), inode)| record(name, *mode, content.as_bytes(), inode, 1))
        .collect();
    out.extend(record("TRAILER!!!", 0, b"", 0, 1));
    out
}

fn small_image() -> Vec<u8> {
    archive(&[
        (".", 0o040_755, ""),
        ("init", 0o100_755, "#!init"),
        ("etc", 0o040_700, ""),
        ("etc/hosts", 0o100_644, "old"),
        ("run", 0o040_755, ""),
        ("var", 0o040_755, ""),
        ("var/run", 0o120_777, "/run"),
        ("data", 0o120_777, "var/../etc/./"),
        ("round", 0o120_777, "round"),
    ])
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory(u32),
    File(u32, Vec<u8>),
    Link(String),
}

type Tree = BTreeMap<String, Node>;

/// Unpacks as Linux does (`init/initramfs.c`): archives begin at multiples of four bytes, what has no parent
/// directory is dropped, what has another type is replaced, and links on the way are followed. Returns the archives'
/// number as well.
fn unpack(bytes: &[u8]) -> (Tree, usize) {
    let mut tree = Tree::from([(String::new(), Node::Directory(0o755))]);
    let (mut at, mut archives, mut inside) = (0, 0, false);
    while at < bytes.len() {
        if bytes[at] == 0 {
            at += 1;
            continue;
        }
        assert_eq!(at % 4, 0, "a record at an odd place is not seen");
        let field = |n: usize| {
            let from = at + 6 + 8 * n;
            u32::from_str_radix(std::str::from_utf8(&bytes[from..from + 8]).unwrap(), 16).unwrap()
        };
        assert_eq!(&bytes[at..at + 6], b"070701");
        let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
        let name = std::str::from_utf8(&bytes[at + 110..at + 110 + name_size - 1]).unwrap().to_owned();
        let content_at = (at + 110 + name_size).next_multiple_of(4);
        let content = bytes[content_at..content_at + size].to_vec();
        at = (content_at + size).next_multiple_of(4);
        if !inside {
            archives += 1;
        }
        inside = name != "TRAILER!!!";
        let name = name.trim_start_matches("./").to_owned();
        if !inside || name == "." {
            continue;
        }
        let (parent, last) = name.rsplit_once('/').unwrap_or(("", &name));
        let Some(parent) = resolve(&tree, parent, 0) else { continue };
        let place = format!("{parent}{}{last}", if parent.is_empty() { "" } else { "/" });
        let node = match mode & 0o170_000 {
            0o040_000 => Node::Directory(mode & 0o7777),
            0o100_000 => Node::File(mode & 0o7777, content),
            0o120_000 => Node::Link(String::from_utf8(content).unwrap()),
            other => panic!("type {other:o}"),
        };
        tree.insert(place, node);
    }
    assert!(!inside, "the last archive has no trailer");
    (tree, archives)
}

fn resolve(tree: &Tree, path: &str, depth: u32) -> Option<String> {
    let mut here = String::new();
    for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
        if part == ".." {
            here = here.rsplit_once('/').map(|(p, _)| p.to_owned()).unwrap_or_default();
            continue;
        }
        let next = if here.is_empty() { part.to_owned() } else { format!("{here}/{part}") };
        here = match tree.get(&next)? {
            Node::Directory(_) => next,
            Node::File(..) => return None,
            Node::Link(_) if depth > 40 => return None,
            Node::Link(to) if to.starts_with('/') => resolve(tree, to, depth + 1)?,
            Node::Link(to) => resolve(tree, &format!("{here}/{to}"), depth + 1)?,
        };
    }
    Some(here)
}

fn content<'t>(tree: &'t Tree, path: &str) -> &'t str {
    match tree.get(path) {
        Some(Node::File(_, content)) => std::str::from_utf8(content).unwrap(),
        other => panic!("{path}: {other:?}"),
    }
}

fn files_are_added_with_the_directories_on_their_way() {
    // R16: without records for the parents the kernel drops files silently.
    for base in [small_image(), Vec::new()] {
        for dialect in [Dialect::Appended, Dialect::Single] {
            let out = composed(&base, &[file("/a/b/c/config", "new"), file("/urunit.conf", "UES")], dialect)
                .unwrap();
            let (tree, _) = unpack(&out);
            assert_eq!(content(&tree, "a/b/c/config"), "new");
            assert_eq!(content(&tree, "urunit.conf"), "UES");
            assert_eq!(tree["a/b"], Node::Directory(0o755));
            if !base.is_empty() {
                assert_eq!(content(&tree, "init"), "#!init");
            }
        }
    }
}

fn directories_that_exist_keep_their_mode() {
    let (tree, _) =
        unpack(&composed(&small_image(), &[file("/etc/hosts", "new")], Dialect::Appended).unwrap());
    assert_eq!(tree["etc"], Node::Directory(0o700));
    assert_eq!(tree["etc/hosts"], Node::File(0o640, b"new".to_vec()));
}

fn links_of_the_image_are_followed_and_kept() {
    // A directory record in place of a link replaces the link, and with it whatever it led to.
    let additions = [file("/var/run/secrets/token", "t"), file("/data/resolv.conf", "r")];
    for dialect in [Dialect::Appended, Dialect::Single] {
        let (tree, _) = unpack(&composed(&small_image(), &additions, dialect).unwrap());
        assert_eq!(tree["var/run"], Node::Link("/run".into()));
        assert_eq!(content(&tree, "run/secrets/token"), "t");
        assert_eq!(content(&tree, "etc/resolv.conf"), "r");
    }
}

fn a_directory_over_a_link_is_where_the_link_leads() {
    // The directory's record replaced the link, and what was in the volume went to where it had led.
    let base = archive(&[
        ("srv", 0o040_755, ""),
        ("srv/old", 0o100_644, "old"),
        ("data", 0o120_777, "srv"),
        ("gone", 0o120_777, "/not/there"),
        ("round", 0o120_777, "round"),
        ("top", 0o120_777, "/"),
    ]);
    for dialect in [Dialect::Appended, Dialect::Single] {
        let volume = |at: &str| {
            [
                addition(at, Content::Directory),
                file(&format!("{at}/key"), "k"),
                file(&format!("{at}/a/b"), "b"),
            ]
        };
        let (tree, _) = unpack(&composed(&base, &volume("/data"), dialect).unwrap());
        assert_eq!(tree["data"], Node::Link("srv".into()));
        assert_eq!(tree["srv"], Node::Directory(0o640));
        assert_eq!((content(&tree, "srv/old"), content(&tree, "srv/key")), ("old", "k"));
        let (tree, _) = unpack(&composed(&base, &volume("/gone"), dialect).unwrap());
        assert_eq!((&tree["gone"], content(&tree, "not/there/key")), (&Node::Link("/not/there".into()), "k"));
        let (tree, _) = unpack(&composed(&base, &volume("/top"), dialect).unwrap());
        assert_eq!((content(&tree, "key"), content(&tree, "a/b")), ("k", "b"));
        for refused in [
            &[addition("/round", Content::Directory)][..],
            &[file("/data", ""), addition("/data", Content::Directory)],
        ] {
            let refused = composed(&base, refused, dialect);
            assert!(matches!(refused, Err(InitrdError::Blocked { .. })), "{refused:?}");
        }
    }
}

fn a_directory_of_a_single_archive_stays_before_what_is_in_it() {
    // Its record was replaced by one at the end, and Unikraft had nowhere to put what came before that.
    let base = archive(&[("config", 0o040_700, ""), ("config/default.conf", 0o100_644, "d")]);
    let additions = [addition("/config", Content::Directory), file("/config/key", "k")];
    let (tree, archives) = unpack(&composed(&base, &additions, Dialect::Single).unwrap());
    assert_eq!(
        (archives, content(&tree, "config/default.conf"), content(&tree, "config/key")),
        (1, "d", "k")
    );
    assert_eq!(tree["config"], Node::Directory(0o640));
}

fn a_file_with_several_names_is_never_written_through() {
    // The kernel truncates and writes the file that it finds (`do_name` in init/initramfs.c): all names changed.
    let base = [record("bin/a", 0o100_644, b"x", 1, 2), record("bin/b", 0o100_644, b"", 1, 2), archive(&[])]
        .concat();
    for dialect in [Dialect::Appended, Dialect::Single] {
        let refused = composed(&base, &[file("/bin/a", "")], dialect);
        assert!(matches!(refused, Err(InitrdError::Shared { .. })), "{refused:?}");
    }
}

fn a_compressed_initrd_ends_with_a_zero_word() {
    // `unlz4` takes whatever follows for the length of a block, unless it is zero.
    for length in 5..9 {
        let base = [&[0x02, 0x21, 0x4c, 0x18], &vec![0xff; length][..]].concat();
        let out = composed(&base, &[file("/x", "y")], Dialect::Appended).unwrap();
        let archive = out.windows(6).position(|w| w == b"070701").unwrap();
        assert_eq!(out[base.len()..base.len() + 4], [0; 4]);
        assert_eq!((archive % 4, content(&unpack(&out[archive..]).0, "x")), (0, "y"));
    }
}

fn an_unaligned_initrd_is_padded_before_the_second_archive() {
    // monitors-and-guests 29: a second archive at an odd offset is not seen by the kernel.
    for cut in 0..4 {
        let mut base = small_image();
        base.extend(vec![0; cut]);
        let out = composed(&base, &[file("/x", "y")], Dialect::Appended).unwrap();
        let (tree, archives) = unpack(&out);
        assert_eq!((content(&tree, "x"), archives), ("y", 2));
        assert_eq!(out.len() % 4, 0);
    }
}

fn without_additions_the_initrd_is_unchanged() {
    for base in [small_image(), b"anything".to_vec()] {
        assert_eq!(composed(&base, &[], Dialect::Single).unwrap(), base);
    }
}

fn a_single_archive_stays_single_and_replaces_what_was_there() {
    // R16: Unikraft reads one archive only.
    let out = composed(&small_image(), &[file("/etc/hosts", "new")], Dialect::Single).unwrap();
    let (tree, archives) = unpack(&out);
    assert_eq!((archives, content(&tree, "etc/hosts")), (1, "new"));
    assert!(!out.windows(3).any(|w| w == b"old"), "the old file is still in it");
}

fn inode_numbers_are_never_shared() {
    let base = archive(&[("a", 0o100_644, "1"), ("b", 0o100_644, "2")]);
    let out = composed(&base, &[file("/c", "3"), file("/d/e", "4")], Dialect::Single).unwrap();
    let mut inodes = Vec::new();
    for at in (0..out.len() - 6).filter(|at| out[*at..].starts_with(b"070701")) {
        inodes.push(String::from_utf8(out[at + 6..at + 14].to_vec()).unwrap().to_uppercase());
    }
    assert_eq!(inodes, ["00000001", "00000002", "00000003", "00000004", "00000005", "00000000"]);
}

fn a_compressed_initrd_takes_additions_only_where_they_cannot_break_it() {
    let mut base = archive(&[("kernel", 0o040_755, "")]);
    base.extend(b"\x1f\x8b\x08compressed");
    let out = composed(&base, &[file("/etc/hosts", "h"), file("/tmp/x", "t")], Dialect::Appended).unwrap();
    assert!(out.starts_with(&base));
    let (tree, _) = unpack(&out[base.len().next_multiple_of(4)..]);
    assert_eq!((content(&tree, "etc/hosts"), &tree["tmp"]), ("h", &Node::Directory(0o1777)));
    for addition in
        [file("/lib/x", ""), file("/var/run/secret", ""), addition("/var/run", Content::Directory)]
    {
        let refused = composed(&base, &[addition], Dialect::Appended);
        assert!(matches!(refused, Err(InitrdError::PerhapsALink { .. })), "{refused:?}");
    }
    // R16: a compressed archive for Unikraft was corrupted.
    for base in [base, b"\x1f\x8b".to_vec(), record("no trailer", 0o100_644, b"", 1, 1)] {
        assert!(matches!(
            composed(&base, &[file("/x", "")], Dialect::Single),
            Err(InitrdError::NotAnArchive)
        ));
    }
}

fn what_cannot_be_added_is_refused() {
    let base = small_image();
    for path in ["relative", "/", "/..", "/a/../b", "/TRAILER!!!", &format!("/{}", "x".repeat(5000))] {
        let refused = composed(&base, &[file(path, "")], Dialect::Appended);
        assert!(matches!(refused, Err(InitrdError::Unfit { .. })), "{path}");
    }
    for path in ["/init/below", "/round/x", "/etc"] {
        let refused = composed(&base, &[file(path, "")], Dialect::Appended);
        assert!(matches!(refused, Err(InitrdError::Blocked { .. })), "{path}");
    }
    for pair in [["/a", "/a/b"], ["/a/b", "/a"]] {
        let refused = composed(&base, &pair.map(|p| file(p, "")), Dialect::Appended);
        assert!(matches!(refused, Err(InitrdError::Blocked { .. })), "{pair:?}");
    }
}

fn hostile_archives_are_refused_or_survived() {
    let huge_name = [&b"070701"[..], "00000000".repeat(11).as_bytes(), b"FFFFFFFF", b"00000000"].concat();
    let zeros = "00000000".repeat(6);
    let huge_file = [&b"070701"[..], zeros.as_bytes(), b"FFFFFFFF", zeros.as_bytes()];
    let signs = [&b"070701"[..], "+0000001".repeat(13).as_bytes()].concat();
    for base in [huge_name, huge_file.concat(), signs, b"07070".to_vec(), b"070701".to_vec()] {
        assert!(matches!(
            composed(&base, &[file("/x", "")], Dialect::Single),
            Err(InitrdError::NotAnArchive)
        ));
        assert!(composed(&base, &[file("/x", "")], Dialect::Appended).is_ok());
    }
    // A gigabyte of names, were they all remembered.
    let name = "x".repeat(4080);
    let names: Vec<u8> =
        (0..17_000).flat_map(|n| record(&format!("{n}{name}"), 0o100_644, b"", 1, 1)).collect();
    let refused = composed(&names, &[file("/x", "")], Dialect::Appended);
    assert!(matches!(refused, Err(InitrdError::TooManyFiles)), "{:?}", refused.map(|out| out.len()));
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let mutated = (any::<prop::sample::Index>(), any::<u8>());
    runner
        .run(&prop::collection::vec(mutated, 1..6), |changes| {
            let mut base = small_image();
            for (at, byte) in changes {
                let at = at.index(base.len());
                base[at] = byte;
            }
            for dialect in [Dialect::Appended, Dialect::Single] {
                let _ = composed(&base, &[file("/etc/x/y", "z")], dialect);
            }
            Ok(())
        })
        .unwrap();
}

fn cpio(dir: &std::path::Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("cpio");
    let mut child =
        command.args(args).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn the_real_cpio_unpacks_what_was_composed() {
    if !have_program("cpio") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let additions = [
        file("/etc/hosts", "new"),
        file("/a/b,c=d/with space", "x"),
        addition("/a/empty", Content::Directory),
        addition("/a/link", Content::Link("../etc/hosts".into())),
    ];
    let out = composed(&small_image(), &additions, Dialect::Single).unwrap();
    cpio(dir.path(), &["--extract", "--quiet", "--no-absolute-filenames"], &out);
    let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
    assert_eq!((read("etc/hosts"), read("init")), ("new".into(), "#!init".into()));
    assert_eq!((read("a/b,c=d/with space"), read("a/link")), ("x".into(), "new".into()));
    assert!(dir.path().join("a/empty").is_dir());
}

fn the_real_cpio_s_archives_are_understood() {
    if !have_program("cpio") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
    fs::write(dir.path().join("usr/lib/a"), "a").unwrap();
    std::os::unix::fs::symlink("usr/lib", dir.path().join("lib")).unwrap();
    for format in ["newc", "crc"] {
        let list = b".\nusr\nusr/lib\nusr/lib/a\nlib\n";
        let base = cpio(dir.path(), &["--create", "--quiet", &format!("--format={format}")], list);
        assert_eq!(base.len() % 512, 0);
        let out = composed(&base, &[file("/lib/b", "b")], Dialect::Single).unwrap();
        let into = tempfile::tempdir().unwrap();
        // The format of the first record counts for cpio; ours are all newc.
        if format == "newc" {
            cpio(into.path(), &["--extract", "--quiet"], &out);
            assert_eq!(fs::read_to_string(into.path().join("lib/b")).unwrap(), "b");
            assert_eq!(fs::read_to_string(into.path().join("lib/a")).unwrap(), "a");
        }
    }
}

/// Where an addition at `path` of the small image ends up: links on the way are followed, a last one by a directory only.
fn place(before: &Tree, path: &str, what: &Content) -> Option<String> {
    let mut here = String::new();
    let mut parts = path[1..].split('/').peekable();
    while let Some(part) = parts.next() {
        let next = if here.is_empty() { part.to_owned() } else { format!("{here}/{part}") };
        let followed = parts.peek().is_some() || *what == Content::Directory;
        here = match before.get(&next) {
            Some(Node::Link(_)) if followed => resolve(before, &next, 0)?,
            _ => next,
        };
    }
    Some(here)
}

fn whatever_is_added_is_there_and_nothing_else_is_lost() {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let what = prop_oneof![
        4 => "[a-z]{0,9}".prop_map(|text| Content::File(text.into_bytes())),
        2 => Just(Content::Directory),
        1 => Just(Content::Link("elsewhere".into())),
    ];
    // Paths of the image's among them: directories, links to directories, a file and a link to itself.
    let path = prop_oneof![
        4 => "(/[a-c]{1,2}){1,4}",
        1 => "/(etc|run|data|var|var/run|round|init)(/[ab]){0,2}",
    ];
    let additions = prop::collection::vec((path, what), 0..8);
    let dialect = prop_oneof![Just(Dialect::Appended), Just(Dialect::Single)];
    runner
        .run(&(additions, dialect), |(wanted, dialect)| {
            let additions: Vec<_> = wanted.iter().map(|(path, what)| addition(path, what.clone())).collect();
            let base = small_image();
            let before = unpack(&base).0;
            let at = |path: &str, what: &Content| place(&before, path, what);
            match composed(&base, &additions, dialect) {
                Ok(out) => {
                    let (tree, _) = unpack(&out);
                    let mut expected = BTreeMap::new();
                    for (path, what) in &wanted {
                        expected.insert(at(path, what).unwrap(), what.clone());
                    }
                    for (path, what) in &expected {
                        let there = match what {
                            Content::File(bytes) => Node::File(0o640, bytes.clone()),
                            Content::Directory => Node::Directory(0o640),
                            Content::Link(to) => Node::Link(to.to_str().unwrap().to_owned()),
                        };
                        prop_assert_eq!(tree.get(path), Some(&there), "{}", path);
                    }
                    for (path, node) in before.iter().filter(|(path, _)| !expected.contains_key(*path)) {
                        prop_assert_eq!(tree.get(path), Some(node), "{}", path);
                    }
                }
                // One of the random paths lies below another that is no directory, or something is there already.
                Err(InitrdError::Blocked { path }) => {
                    let all: Vec<_> = wanted.iter().map(|(path, _)| path.as_str()).collect();
                    let path = path.to_str().unwrap();
                    let meets = |other: &&&str| {
                        let one = format!("{}/", at(path, &Content::Directory).unwrap_or_default());
                        let two = format!("{}/", at(other, &Content::Directory).unwrap_or_default());
                        one.starts_with(&two) || two.starts_with(&one)
                    };
                    let others = all.iter().filter(meets).count() > 1;
                    let image = ["/etc", "/run", "/data", "/var", "/round", "/init"];
                    prop_assert!(others || image.iter().any(|taken| path.starts_with(taken)), "{}", path);
                }
                Err(e) => panic!("{e}"),
            }
            Ok(())
        })
        .unwrap();
}
