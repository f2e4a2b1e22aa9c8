//! Linux: a command line for the kernel, `init=PROGRAM -- ARGUMENTS` for the process (Linux
//! `Documentation/admin-guide/kernel-parameters.rst`; `lib/cmdline.c`, `next_arg`; `init/main.c`).
//!
//! The kernel splits its line at white space and takes double quotes off, so arguments with spaces are exact.
//! Variables travel in one of two ways. With `urunit` as the program, in its configuration file. With any other,
//! on the command line, where the kernel gives what it does not know to the program: only what cannot be a
//! parameter of the kernel itself is let through, and only as many as the kernel has room for.
//!
//! The kernel's `ip=` is for IPv4 only, and a wrong one spoils it, so IPv6 travels as variables of our own:
//! `URUNC_IPV6=ADDRESS/PREFIX[,ADDRESS/PREFIX]…` and `URUNC_IPV6_GATEWAY=ADDRESS`, for the program
//! to configure on `eth0`. A guest whose program ignores them has what router advertisements give it.

use super::{
    Board, Boot, EncodeError, Guest, Item, Network, Omission, Platform, Root, Route, Workload,
    network::Ipv4,
    omission::{Addresses, Carries, Routes},
    text::{COMMAND_LINE, finish, is_control, refuse, variable},
    urunit,
    workload::{Place, only_network, refuse_volumes},
};
use crate::{Access, Arch, Console, Monitor, ShareKind};

const GUEST: Guest = Guest::Linux;
/// `COMMAND_LINE_SIZE` of x86 and arm64, with its NUL.
const LINE_LIMIT: usize = 2047;
/// `MAX_INIT_ENVS` and `MAX_INIT_ARGS` are 32; HOME and TERM take two of the former, the program one of the latter.
const MAX_VARIABLES: usize = 30;
const MAX_ARGUMENTS: usize = 31;

pub(super) fn boot(workload: &Workload, place: Place<'_>) -> Result<Boot, EncodeError> {
    let program = workload.args.first().ok_or(EncodeError::Empty {
        item: Item::Named("the list of arguments"),
        guest: GUEST,
        format: COMMAND_LINE,
    })?;
    let with_urunit = urunit::is_urunit(program);

    // A panic ends the machine at once.
    let mut words = vec!["panic=-1".to_owned(), console(place)];
    if place.monitor == Monitor::Firecracker && place.arch == Arch::X86_64 {
        // The keyboard controller is the one way to reset that Firecracker takes for an orderly end.
        words.push("reboot=k".to_owned());
    }
    words.extend(root(workload, place)?);
    let network = only_network(workload)?;
    let ipv4 = network.and_then(Network::ipv4);
    // On a kernel that is not configured for it, `ip=` too is a variable.
    let mut of_network = Vec::new();
    if let Some(ipv4) = &ipv4 {
        of_network.push(ip(ipv4, &workload.hostname)?);
    }
    of_network.extend(network.map_or_else(Vec::new, ipv6));
    let room = MAX_VARIABLES.saturating_sub(of_network.len());
    words.extend(of_network);
    let far_gateway = ipv4.as_ref().filter(|ipv4| !ipv4.gateway_is_on_link()).and_then(|ipv4| ipv4.gateway);
    let config = if with_urunit {
        let (parameters, config) = urunit::configure(workload, place)?;
        words.extend(parameters);
        // It says that all of IPv4 is on the link.
        let on_link = network.is_some_and(|network| network.routes.iter().any(Route::is_ipv4_on_link));
        if far_gateway.is_some() || on_link {
            words.push("URUNIT_DEFROUTE=1".to_owned());
        }
        Some(config)
    } else {
        refuse_volumes(workload, "urunit mounts them: make it the image's program")?;
        words.extend(variables(&workload.env, room)?);
        None
    };
    words.extend(program_and_arguments(workload, place, program)?);

    let carries = Carries {
        arguments: true,
        environment: true,
        hostname: ipv4.is_some(),
        process: with_urunit,
        name_servers: if ipv4.is_some() { 2 } else { 0 },
        addresses: Addresses::Ipv4AndAllIpv6,
        routes: if with_urunit { Routes::Ipv4OnLink } else { Routes::None },
    };
    let mut omitted = carries.omitted(workload);
    // The kernel makes no route by a gateway that it cannot reach (net/ipv4/ipconfig.c).
    omitted.extend(far_gateway.filter(|_| !with_urunit).map(|gateway| Omission::Gateway(gateway.into())));
    let platform = Platform { board: Board::Common, ..Platform::default() };
    let boot = finish(GUEST, &words, platform, omitted)?;
    let size = boot.command_line.as_str().len();
    if size > LINE_LIMIT {
        let item = Item::Named("the command line, arguments and environment included,");
        return Err(EncodeError::TooLong { item, size, limit: LINE_LIMIT, guest: GUEST });
    }
    Ok(Boot { config, ..boot })
}

fn console(place: Place<'_>) -> String {
    let device = match (place.machine.console, place.arch, place.monitor) {
        (Console::Virtio, ..) => "hvc0",
        (Console::Serial, Arch::Aarch64, Monitor::Qemu | Monitor::CloudHypervisor) => "ttyAMA0",
        (Console::Serial, ..) => "ttyS0",
    };
    format!("console={device}")
}

fn root(workload: &Workload, place: Place<'_>) -> Result<Vec<String>, EncodeError> {
    let parameters = match &workload.root {
        Root::None => String::new(),
        Root::Initrd => "root=/dev/ram0 rw".to_owned(),
        Root::Disk { id, file_system } => {
            let (index, disk) = place.disk(id, GUEST)?;
            let access = if disk.access == Access::ReadOnly { "ro" } else { "rw" };
            let mut parameters = format!("root={} {access}", disk_node(index)?);
            if let Some(file_system) = file_system {
                let item = || Item::Value { what: "the file system type", value: file_system.clone() };
                refuse(GUEST, COMMAND_LINE, item, file_system, |c| !c.is_ascii_alphanumeric())?;
                parameters = format!("{parameters} rootfstype={file_system}");
            }
            parameters
        }
        Root::Share(tag) => match &place.share(tag, GUEST)?.kind {
            ShareKind::NineP { .. } => format!(
                "root={tag} rw rootfstype=9p \
                 rootflags=trans=virtio,version=9p2000.L,msize=5000000,cache=mmap,posixacl"
            ),
            ShareKind::Virtiofs { .. } => format!("root={tag} rw rootfstype=virtiofs"),
        },
    };
    Ok(parameters.split_terminator(' ').map(str::to_owned).collect())
}

/// The name that the kernel gives the n-th virtio disk.
fn disk_node(index: usize) -> Result<String, EncodeError> {
    let letter = u8::try_from(index).ok().filter(|&index| index < 26).map(|index| char::from(b'a' + index));
    letter.map(|letter| format!("/dev/vd{letter}")).ok_or_else(|| EncodeError::Unsupported {
        what: format!("disk number {}", index.saturating_add(1)),
        guest: GUEST,
        remedy: "only the first 26 can be its root",
    })
}

/// `ip=ADDRESS::GATEWAY:MASK:HOST:DEVICE:off[:DNS[:DNS]]` (Documentation/admin-guide/nfs/nfsroot.rst). The device
/// has this name when the kernel reads the line, whatever it is renamed to later.
fn ip(ipv4: &Ipv4, hostname: &str) -> Result<String, EncodeError> {
    let hostname = if hostname.is_empty() { "urunc" } else { hostname };
    let item = || Item::Value { what: "the host name", value: hostname.to_owned() };
    refuse(GUEST, "ip= parameter", item, hostname, |c| !c.is_ascii_alphanumeric() && !"-._".contains(c))?;
    let gateway = ipv4.gateway.map_or_else(String::new, |gateway| gateway.to_string());
    let mut fields = vec![
        format!("ip={}", ipv4.address),
        String::new(),
        gateway,
        ipv4.netmask().to_string(),
        hostname.to_owned(),
        "eth0".to_owned(),
        "off".to_owned(),
    ];
    fields.extend(ipv4.name_servers.iter().take(2).map(ToString::to_string));
    Ok(fields.join(":"))
}

/// The IPv6 part, as variables.
fn ipv6(network: &Network) -> Vec<String> {
    let of_ipv6 = network.addresses.iter().filter(|address| address.address().is_ipv6());
    let addresses: Vec<String> = of_ipv6.map(ToString::to_string).collect();
    if addresses.is_empty() {
        return Vec::new();
    }
    let gateway = network.gateways.iter().find(|gateway| gateway.is_ipv6());
    let gateway = gateway.map(|gateway| format!("URUNC_IPV6_GATEWAY={gateway}"));
    [Some(format!("URUNC_IPV6={}", addresses.join(","))), gateway].into_iter().flatten().collect()
}

/// Variables as parameters that the kernel does not know and so puts into the program's environment, which has `room` for
/// so many.
fn variables(env: &[String], room: usize) -> Result<Vec<String>, EncodeError> {
    if env.len() > room {
        return Err(EncodeError::Unsupported {
            what: format!("{} environment variables", env.len()),
            guest: GUEST,
            remedy: "the kernel passes 30 of its command line on, those of the network included; urunit reads any number \
                     from a file",
        });
    }
    env.iter()
        .map(|entry| {
            let (name, _) = variable(GUEST, entry)?;
            refuse_parameter_name(name)?;
            quote(|| Item::Environment(name.to_owned()), entry)
        })
        .collect()
}

/// Kernel parameters have no capital letters, and a dot makes a name a module's. The kernel takes a dash for an
/// underscore when it compares. The lower-case names below are common variables and no parameters.
fn refuse_parameter_name(name: &str) -> Result<(), EncodeError> {
    const VARIABLES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];
    let item = || Item::Environment(name.to_owned());
    refuse(GUEST, COMMAND_LINE, item, name, |c| c == '.' || c == '"' || !c.is_ascii_graphic())?;
    if VARIABLES.contains(&name) || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(EncodeError::Unsupported {
        what: format!("the environment variable {name:?} on its command line"),
        guest: GUEST,
        remedy: "without a capital letter it could be a kernel parameter; urunit reads variables from a file",
    })
}

fn program_and_arguments(
    workload: &Workload,
    place: Place<'_>,
    program: &str,
) -> Result<Vec<String>, EncodeError> {
    let arguments = workload.args.get(1..).unwrap_or_default();
    if arguments.len() > MAX_ARGUMENTS {
        return Err(EncodeError::Unsupported {
            what: format!("{} arguments", arguments.len()),
            guest: GUEST,
            remedy: "the kernel passes 31 of its command line on; put them into a script",
        });
    }
    let option = if workload.root == Root::Initrd { "rdinit" } else { "init" };
    let mut words = vec![format!("{option}={}", quote(|| Item::argument(0, program), program)?)];
    if arguments.is_empty() {
        // Firecracker finds a separator only if something follows it, and would put its own words behind this one.
        return Ok(words);
    }
    words.push("--".to_owned());
    for (index, argument) in (1..).zip(arguments) {
        let item = || Item::argument(index, argument);
        // The kernel ends its list of arguments at a second separator.
        if argument == "--" {
            return Err(EncodeError::Unsupported {
                what: format!("{} among its arguments", item()),
                guest: GUEST,
                remedy: "the kernel would drop what follows; put the arguments into a script",
            });
        }
        words.push(quote(item, argument)?);
    }
    if place.monitor == Monitor::CloudHypervisor && place.arch == Arch::Aarch64 {
        // It appends `earlycon=`, which would be one more argument: the kernel's list ends here.
        words.push("--".to_owned());
    }
    Ok(words)
}

/// Quotes a word where it needs it. The kernel takes off a quote at the start and at the end. It knows bytes and no
/// UTF-8: the byte 0xa0, which is part of many letters, is white space to it (lib/ctype.c).
fn quote(item: impl Fn() -> Item, word: &str) -> Result<String, EncodeError> {
    refuse(GUEST, COMMAND_LINE, item, word, |c| c == '"' || is_control(c))?;
    let plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
    Ok(if plain { word.to_owned() } else { format!("\"{word}\"") })
}

#[cfg(test)]
mod tests;
