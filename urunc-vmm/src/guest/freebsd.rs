//! FreeBSD: kernel environment variables on the command line, split at white space and commas (FreeBSD
//! `sys/kern/subr_boot.c`, `boot_parse_cmdline`), and urunit's configuration on a disk after all others, padded to
//! whole sectors. Arguments, environment, user and network reach the program only through urunit.

use super::{
    Board, Boot, ConfigPlace, EncodeError, Guest, GuestConfig, Item, Platform, Root, Workload,
    omission::Carries,
    text::{COMMAND_LINE, finish, refuse, refuse_without_ipv4},
    urunit,
    workload::{Place, only_network, refuse_root, refuse_volumes},
};

const GUEST: Guest = Guest::Freebsd;
const SECTOR: usize = 512;

pub(super) fn boot(workload: &Workload, place: Place<'_>) -> Result<Boot, EncodeError> {
    let program = workload.args.first().ok_or(EncodeError::Empty {
        item: Item::Named("the list of arguments"),
        guest: GUEST,
        format: COMMAND_LINE,
    })?;
    refuse_volumes(workload, "urunit on FreeBSD mounts none")?;
    let separator = |c: char| c.is_whitespace() || c.is_control() || c == ',' || c == '"';
    refuse(GUEST, COMMAND_LINE, || Item::argument(0, program), program, separator)?;

    let mut words = vec![root(workload, place)?, format!("init_path={program}")];
    let with_urunit = urunit::is_urunit(program);
    let network = only_network(workload)?;
    if let Some(network) = network {
        refuse_without_ipv4(GUEST, network)?;
    }
    let ipv4 = network.and_then(super::Network::ipv4);
    let config = if with_urunit {
        words.push(format!("URUNIT_CONFIG=/dev/vtbd{}", place.machine.disks.len()));
        if ipv4.as_ref().is_some_and(|ipv4| !ipv4.gateway_is_on_link()) {
            words.push("URUNIT_DEFROUTE=1".to_owned());
        }
        Some(GuestConfig { contents: configuration(workload)?, place: ConfigPlace::LastDisk })
    } else {
        refuse_what_only_urunit_carries(workload)?;
        None
    };
    let platform = Platform { board: Board::SmallWithTimers, ..Platform::default() };
    let carries =
        Carries { arguments: true, environment: with_urunit, process: with_urunit, ..Carries::default() };
    let boot = finish(GUEST, &words, platform, carries.omitted(workload))?;
    Ok(Boot { config, ..boot })
}

fn root(workload: &Workload, place: Place<'_>) -> Result<String, EncodeError> {
    let source = match &workload.root {
        Root::Share(tag) => format!("p9fs:{}", place.nine_p(tag, GUEST)?.tag),
        Root::Disk { id, file_system } => {
            let (index, _) = place.disk(id, GUEST)?;
            let driver = match file_system.as_deref() {
                Some("ext2" | "ext3" | "ext4" | "ext2fs") => "ext2fs",
                Some("ufs" | "ffs") | None => "ufs",
                Some(other) => {
                    return Err(EncodeError::Unsupported {
                        what: format!("a root of file system {other:?}"),
                        guest: GUEST,
                        remedy: "it mounts ufs and ext2 to ext4",
                    });
                }
            };
            format!("{driver}:/dev/vtbd{index}")
        }
        Root::None | Root::Initrd => return refuse_root(workload, "use a disk or 9p"),
    };
    Ok(format!("vfs.root.mountfrom={source}"))
}

fn refuse_what_only_urunit_carries(workload: &Workload) -> Result<(), EncodeError> {
    let what = if workload.args.len() > 1 {
        "arguments for another init program than urunit"
    } else if !workload.networks.is_empty() {
        "a network with another init program than urunit"
    } else {
        return Ok(());
    };
    let remedy = "make urunit the image's program";
    Err(EncodeError::Unsupported { what: what.to_owned(), guest: GUEST, remedy })
}

/// urunit's sections, with the arguments and the network that FreeBSD's kernel has no way to pass on.
fn configuration(workload: &Workload) -> Result<Vec<u8>, EncodeError> {
    let mut lines = urunit::environment(workload)?;
    lines.extend(urunit::process_fields(workload)?);
    let arguments = workload.args.get(1..).unwrap_or_default();
    lines.push(format!("ARC:{}", arguments.len()));
    for (index, argument) in (1..).zip(arguments) {
        let item = || Item::argument(index, argument);
        refuse(GUEST, "urunit configuration", item, argument, |c| c == '\n' || c == '\0')?;
        // It skips white space at the start of a value, and takes an empty one for an error.
        if argument.trim_start().len() < argument.len() || argument.is_empty() {
            return Err(EncodeError::Unsupported {
                what: item().to_string(),
                guest: GUEST,
                remedy: "urunit drops white space at its start and refuses nothing at all",
            });
        }
        lines.push(format!("ARV:{argument}"));
    }
    lines.extend(["UCE", "UBS", "UBE", "UNS"].map(str::to_owned));
    if let Some(ipv4) = workload.networks.first().and_then(super::Network::ipv4) {
        lines.push(format!("IP:{}", ipv4.address));
        lines.extend(ipv4.gateway.map(|gateway| format!("GW:{gateway}")));
        lines.push(format!("MSK:{}", ipv4.netmask()));
    }
    lines.extend(["UNE", "PAD"].map(str::to_owned));
    let mut contents = (lines.join("\n") + "\n").into_bytes();
    contents.resize(contents.len().next_multiple_of(SECTOR), b'\n');
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Arch, Monitor,
        guest::tests::{machine, network},
    };

    fn workload(args: &[&str]) -> Workload {
        Workload {
            root: Root::Disk { id: "rootfs".parse().unwrap(), file_system: Some("ext4".to_owned()) },
            ..Workload::new(GUEST, args.iter().map(|&arg| arg.to_owned()).collect())
        }
    }

    fn boot(workload: &Workload) -> Result<Boot, EncodeError> {
        workload.boot(&machine(), Monitor::Firecracker, Arch::X86_64)
    }

    #[test]
    fn urunit_finds_everything_on_the_last_disk() {
        let workload = Workload { networks: vec![network()], ..workload(&["/urunit", "/bin/sh", "a b"]) };
        let boot = boot(&workload).unwrap();
        assert_eq!(
            boot.command_line.as_str(),
            "vfs.root.mountfrom=ext2fs:/dev/vtbd0 init_path=/urunit URUNIT_CONFIG=/dev/vtbd1"
        );
        let config = boot.config.unwrap();
        assert_eq!(config.place, ConfigPlace::LastDisk);
        assert_eq!(config.contents.len(), SECTOR);
        assert_eq!(
            String::from_utf8(config.contents).unwrap().trim_end(),
            "UES\nUEE\nUCS\nUID:0\nGID:0\nWD:/\nARC:2\nARV:/bin/sh\nARV:a b\nUCE\nUBS\nUBE\nUNS\nIP:10.0.0.2\n\
             GW:10.0.0.1\nMSK:255.255.255.0\nUNE\nPAD"
        );
    }

    #[test]
    fn what_would_get_lost_is_refused() {
        for args in [
            &["/sbin/init", "x"][..],
            &["/sbin init"],
            &["/sbin/init,x"],
            &["/urunit", " x"],
            &["/urunit", ""],
            &["/urunit", "a\nUCE"],
            &[],
        ] {
            assert!(boot(&workload(args)).is_err(), "{args:?}");
        }
        assert!(boot(&Workload { networks: vec![network()], ..workload(&["/sbin/init"]) }).is_err());
    }
}
