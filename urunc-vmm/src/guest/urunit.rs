//! The configuration file of urunit, the init program (nubificus/urunit `main.c`): sections of lines, each in fixed
//! order, and values that reach from a colon to the end of the line.

use std::path::Path;

use super::{
    ConfigPlace, EncodeError, Guest, GuestConfig, Item, Root, Volume, Workload, text, workload::Place,
};
use crate::Monitor;

const FORMAT: &str = "urunit configuration";
/// It compares serial numbers in a buffer of 10 bytes.
const SERIAL_LIMIT: usize = 9;

/// Tells whether a program is urunit, by its whole name.
pub(super) fn is_urunit(program: &str) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == "urunit")
}

/// Writes the configuration for Linux, and returns the kernel parameters that tell urunit where it is.
pub(super) fn configure(
    workload: &Workload,
    place: Place<'_>,
) -> Result<(Vec<String>, GuestConfig), EncodeError> {
    refuse_arguments(workload)?;
    let mut lines = environment(workload)?;
    lines.extend(process_fields(workload)?);
    lines.extend(["UCE", "UBS"].map(str::to_owned));
    for (nth, volume) in (1..).zip(&workload.volumes) {
        let id = disk_id(place, nth, volume)?;
        let item = || Item::Value { what: "the mount point", value: volume.mount_point.clone() };
        lines.extend([format!("ID:{id}"), format!("MP:{}", path(Guest::Linux, item, &volume.mount_point)?)]);
    }
    lines.push("UBE".to_owned());
    let contents = (lines.join("\n") + "\n").into_bytes();

    let (parameters, place): (&[&str], _) = if workload.root == Root::Initrd {
        (&["URUNIT_CONFIG=/urunit.conf"], ConfigPlace::InitrdFile("/urunit.conf".to_owned()))
    } else {
        // The kernel keeps an initial ramdisk that is no archive, and shows it in sysfs.
        (&["retain_initrd", "URUNIT_CONFIG=/sys/firmware/initrd"], ConfigPlace::Initrd)
    };
    Ok((parameters.iter().map(|&word| word.to_owned()).collect(), GuestConfig { contents, place }))
}

/// Sections that FreeBSD's urunit shares with Linux's: environment, and user, group, directory.
pub(super) fn environment(workload: &Workload) -> Result<Vec<String>, EncodeError> {
    let guest = workload.guest;
    let mut lines = vec!["UES".to_owned()];
    for entry in &workload.env {
        let (name, _) = text::variable(guest, entry)?;
        text::refuse(
            guest,
            FORMAT,
            || Item::Environment(name.to_owned()),
            entry,
            |c| c == '\n' || c == '\0',
        )?;
        // It looks for the end of the section by the first three bytes of a line.
        if name.starts_with("UEE") {
            return Err(EncodeError::Unsupported {
                what: format!("the environment variable {name:?}"),
                guest,
                remedy: "urunit takes a line that starts with UEE for the end of the list",
            });
        }
        lines.push(entry.clone());
    }
    lines.push("UEE".to_owned());
    Ok(lines)
}

/// User, group and working directory, up to where more fields may follow; the caller closes the section.
pub(super) fn process_fields(workload: &Workload) -> Result<Vec<String>, EncodeError> {
    let cwd = if workload.cwd.is_empty() { "/" } else { workload.cwd.as_str() };
    let item = || Item::Value { what: "the working directory", value: cwd.to_owned() };
    let cwd = path(workload.guest, item, cwd)?;
    Ok(vec![
        "UCS".to_owned(),
        format!("UID:{}", workload.uid),
        format!("GID:{}", workload.gid),
        format!("WD:{cwd}"),
    ])
}

/// It finds a disk by its serial number, or, where there is none, by its position: entries whose id starts with
/// `FC` are `/dev/vdb` and on, in the order of the list.
fn disk_id(place: Place<'_>, nth: usize, volume: &Volume) -> Result<String, EncodeError> {
    let (index, disk) = place.disk(&volume.disk, Guest::Linux)?;
    if place.monitor == Monitor::Firecracker {
        if index != nth {
            return Err(EncodeError::Unsupported {
                what: format!("the volume on disk {} at position {}", disk.id, index.saturating_add(1)),
                guest: Guest::Linux,
                remedy: "under firecracker its volumes must be the disks after the first one, in order",
            });
        }
        return Ok(format!("FC{}", disk.id));
    }
    let size = disk.id.as_str().len();
    if size > SERIAL_LIMIT {
        let item = Item::Value { what: "the disk name", value: disk.id.to_string() };
        return Err(EncodeError::TooLong { item, size, limit: SERIAL_LIMIT, guest: Guest::Linux });
    }
    if disk.id.as_str().starts_with("FC") {
        return Err(EncodeError::Unsupported {
            what: format!("a disk named {}", disk.id),
            guest: Guest::Linux,
            remedy: "urunit takes FC at the start for Firecracker's; choose another name",
        });
    }
    Ok(disk.id.to_string())
}

/// It joins arguments from one that starts with a single quote up to one that ends with it.
fn refuse_arguments(workload: &Workload) -> Result<(), EncodeError> {
    for (index, argument) in workload.args.iter().enumerate() {
        if argument.starts_with('\'') && !argument.ends_with('\'') {
            let item = || Item::argument(index, argument);
            text::refuse(Guest::Linux, "urunit start", item, argument, |c| c == '\'')?;
        }
    }
    Ok(())
}

/// White space at the start of a value is skipped, so a path must start with a slash.
fn path(guest: Guest, item: impl Fn() -> Item, value: &str) -> Result<&str, EncodeError> {
    text::refuse(guest, FORMAT, &item, value, |c| c == '\n' || c == '\0')?;
    if value.starts_with('/') {
        return Ok(value);
    }
    Err(EncodeError::Unsupported { what: item().to_string(), guest, remedy: "it must be an absolute path" })
}
