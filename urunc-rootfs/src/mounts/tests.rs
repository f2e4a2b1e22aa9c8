//! Tables as real hosts have them, as hostile ones might, and as the kernel writes any mount.

use std::ffi::OsStr;

use proptest::prelude::*;

use super::*;

const FIXTURES: &str = include_str!("../../tests/fixtures/mountinfo");

fn table() -> MountTable {
    MountTable::parse(FIXTURES.as_bytes())
}

#[test]
fn every_field_of_an_overlay_line_is_read() {
    let table = table();
    assert_eq!(table.unreadable(), []);
    let mount = table.get(MountId(612)).unwrap();
    assert_eq!((mount.parent, mount.device), (MountId(27), DeviceNumber { major: 0, minor: 62 }));
    assert_eq!(mount.root, Path::new("/"));
    assert_eq!(mount.fs_type, "overlay");
    assert_eq!(mount.source, "overlay");
    assert_eq!(mount.options, ["rw", "relatime"]);
    assert_eq!(mount.optional, ["shared:314"]);
    assert!(mount.is_shared());
    assert_eq!(mount.super_options.len(), 5);
    assert!(mount.super_options[1].to_str().unwrap().starts_with("lowerdir=/var/lib/containerd/"));
}

#[test]
fn escapes_and_links_in_names_are_undone() {
    // R19: `\040` never matched.
    let table = table();
    let mount = table.at(Path::new("/run/user dir/a\tb\nc\\d#e")).unwrap();
    assert_eq!(mount.id, MountId(800));
    assert_eq!(mount.source, "my share");
}

#[test]
fn of_stacked_mounts_the_one_on_top_is_found() {
    let table = table();
    let stacked = Path::new("/run/containerd/io.containerd.runtime.v2.task/default/stacked/rootfs");
    assert_eq!(table.at(stacked).unwrap().id, MountId(702));
    // Whatever the order of the lines.
    let mut lines: Vec<&str> = FIXTURES.lines().collect();
    lines.reverse();
    assert_eq!(MountTable::parse(lines.join("\n").as_bytes()).at(stacked).unwrap().id, MountId(702));
}

#[test]
fn a_bind_of_the_hosts_file_system_has_its_device() {
    // R3: `/dev/root` and `/dev/sda1` were two names for one device.
    let device = DeviceNumber { major: 8, minor: 1 };
    let table = table();
    let names: Vec<_> =
        table.of_device(device).map(|m| (m.source.to_str().unwrap(), m.root.to_str().unwrap())).collect();
    assert_eq!(names, [("/dev/root", "/"), ("/dev/sda1", "/srv/images/one")]);
}

#[test]
fn empty_sources_missing_and_several_optional_fields_are_read() {
    let text = "1 2 0:3 / /a rw - tmpfs  rw\n4 2 0:5 / /b rw shared:1 master:2 propagate_from:3 unbindable - x y z\n";
    let table = MountTable::parse(text.as_bytes());
    assert_eq!(table.mounts()[0].source, "");
    assert_eq!(table.mounts()[0].optional.len(), 0);
    assert_eq!(table.mounts()[1].optional.len(), 4);
}

#[test]
fn a_line_of_a_hundred_kilobytes_is_read_to_its_end() {
    // R19: a scanner with a 64 KiB limit ended the table silently.
    let lower =
        (0..2500).map(|n| format!("/var/lib/containerd/snapshots/{n}/fs")).collect::<Vec<_>>().join(":");
    let text = format!(
        "1 2 0:3 / /a rw - overlay overlay rw,lowerdir={lower},upperdir=/u\n5 2 8:1 / /b rw - ext4 /dev/sda1 rw\n"
    );
    assert!(text.len() > 90_000);
    let table = MountTable::parse(text.as_bytes());
    assert_eq!(table.mounts()[0].super_options[2], "upperdir=/u");
    assert_eq!(table.at(Path::new("/b")).unwrap().id, MountId(5));
}

#[test]
fn a_bad_line_is_reported_and_spoils_no_other() {
    // R19: one malformed line broke every lookup.
    let good = "5 2 8:1 / /b rw - ext4 /dev/sda1 rw";
    for (bad, field) in [
        ("x 2 0:3 / /a rw - t s o", "mount id"),
        ("1 -2 0:3 / /a rw - t s o", "parent id"),
        ("1 2 03 / /a rw - t s o", "device"),
        ("1 2 0:99999999999 / /a rw - t s o", "device"),
        ("1 2 0:3 / /a rw t s o", "separator"),
        ("1 2 0:3 / /a rw shared:1 -", "file system type"),
        ("1 2 0:3 / /a rw - t", "source"),
        ("1 2 0:3 / /a rw - t s", "super options"),
    ] {
        let table = MountTable::parse(format!("{good}\n{bad}\n{good}\n").as_bytes());
        assert_eq!(table.unreadable(), [UnreadableLine { number: 2, field }], "{bad}");
        assert_eq!(table.mounts().len(), 2);
    }
}

#[test]
fn the_table_of_this_machine_is_read() {
    let table = MountTable::read().unwrap();
    assert_eq!(table.unreadable(), []);
    assert!(table.at(Path::new("/proc")).is_some_and(|m| m.fs_type == "proc"));
}

/// As the kernel's `mangle` and `seq_path` do.
fn escape(text: &OsStr) -> Vec<u8> {
    let one = |b: &u8| match b {
        b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{b:03o}").into_bytes(),
        b => vec![*b],
    };
    text.as_bytes().iter().flat_map(one).collect()
}

fn line(m: &Mount) -> Vec<u8> {
    let list = |items: &[OsString]| items.iter().map(|i| escape(i)).collect::<Vec<_>>().join(&b","[..]);
    let mut fields = vec![
        m.id.0.to_string().into_bytes(),
        m.parent.0.to_string().into_bytes(),
        m.device.to_string().into_bytes(),
        escape(m.root.as_os_str()),
        escape(m.point.as_os_str()),
        list(&m.options),
    ];
    fields.extend(m.optional.iter().map(|o| escape(o)));
    fields.extend([b"-".to_vec(), escape(&m.fs_type), escape(&m.source), list(&m.super_options)]);
    fields.join(&b' ')
}

fn bytes(len: std::ops::Range<usize>) -> impl Strategy<Value = OsString> {
    let byte = any::<u8>().prop_filter("no comma, no NUL", |b| *b != b',' && *b != 0);
    proptest::collection::vec(byte, len).prop_map(OsString::from_vec)
}

prop_compose! {
    fn mount()(
        ids in any::<(u64, u64)>(),
        device in any::<(u32, u32)>(),
        root in bytes(1..40),
        point in bytes(1..40),
        options in proptest::collection::vec(bytes(1..10), 1..4),
        optional in proptest::collection::vec("(shared|master):[0-9]{1,4}", 0..3),
        fs_type in bytes(1..12),
        source in bytes(0..40),
        super_options in proptest::collection::vec(bytes(1..30), 1..6),
    ) -> Mount {
        Mount {
            id: MountId(ids.0),
            parent: MountId(ids.1),
            device: DeviceNumber { major: device.0, minor: device.1 },
            root: root.into(),
            point: point.into(),
            options,
            optional: optional.into_iter().map(OsString::from).collect(),
            fs_type,
            source,
            super_options,
        }
    }
}

proptest! {
    #[test]
    fn what_the_kernel_writes_is_what_is_read(mounts in proptest::collection::vec(mount(), 0..6)) {
        let text: Vec<u8> = mounts.iter().flat_map(|m| { let mut l = line(m); l.push(b'\n'); l }).collect();
        let table = MountTable::parse(&text);
        prop_assert_eq!(table.mounts(), &mounts);
        prop_assert!(table.unreadable().is_empty());
    }

    #[test]
    fn no_bytes_make_it_panic_and_no_line_is_lost(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        let table = MountTable::parse(&text);
        let lines = text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).count();
        prop_assert_eq!(table.mounts().len() + table.unreadable().len(), lines);
    }

    #[test]
    fn almost_valid_lines_do_not_make_it_panic(text in "[0-9:/ \\\\,a-z-]{0,120}") {
        let _ = MountTable::parse(text.as_bytes());
    }
}
