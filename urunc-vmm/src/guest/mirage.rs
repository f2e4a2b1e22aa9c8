//! MirageOS: runtime arguments, split by the `parse-argv` library: at spaces, with double quotes and backslash
//! escapes (mirage/parse-argv `src/parse_argv.ml`). An empty argument disappears there, so it is refused.

use super::{
    Board, Boot, EncodeError, ExitPort, Guest, Item, Network, Platform, PowerButton, VirtioPci, Workload,
    network::InterfaceAddress,
    omission::{Addresses, Carries},
    text::{COMMAND_LINE, finish, is_control, refuse, refuse_empty},
    workload::{Place, refuse_root, refuse_volumes},
};
use crate::guest::Root;

const GUEST: Guest = Guest::Mirage;
/// The network device that MirageOS names when the application does not.
const DEFAULT_NET: &str = "service";

pub(super) fn boot(workload: &Workload, place: Place<'_>) -> Result<Boot, EncodeError> {
    refuse_volumes(workload, "it reads block devices itself: give it the disk alone")?;
    if !matches!(workload.root, Root::None | Root::Disk { .. }) {
        return refuse_root(workload, "use a disk");
    }
    let mut words = Vec::new();
    for (index, network) in workload.networks.iter().enumerate() {
        words.extend(network_arguments(place, index, network)?);
    }
    for (index, argument) in workload.args.iter().enumerate() {
        let item = || Item::argument(index, argument);
        refuse_empty(GUEST, COMMAND_LINE, item, argument)?;
        refuse(GUEST, COMMAND_LINE, item, argument, is_control)?;
        words.push(quote(argument));
    }
    let platform = Platform {
        board: Board::Common,
        virtio_pci: VirtioPci::Transitional,
        // Solo5's virtio target ends through it, and before 0.13 in no other way; QEMU's status is then 83.
        exit_port: ExitPort::DebugExit,
        power_button: PowerButton::Ignored,
    };
    let carries = Carries { arguments: true, addresses: Addresses::Either, ..Carries::default() };
    finish(GUEST, &words, platform, carries.omitted(workload))
}

/// The options of a device other than the default one start with its name, if the image gives one.
fn network_arguments(place: Place<'_>, index: usize, network: &Network) -> Result<Vec<String>, EncodeError> {
    let named = place.machine.nets.get(index).and_then(|net| net.declared_as.as_deref());
    let prefix = match named {
        Some(name) if name != DEFAULT_NET => format!("{name}-"),
        None if index > 0 => {
            return Err(EncodeError::Unsupported {
                what: format!("an address on network interface {index}"),
                guest: GUEST,
                remedy: "say in the image what the kernel calls it",
            });
        }
        _ => String::new(),
    };
    let address = network.ipv4_address().or_else(|| network.addresses.first().copied());
    Ok(address.map_or_else(Vec::new, |address| options(&prefix, address, network)))
}

fn options(prefix: &str, address: InterfaceAddress, network: &Network) -> Vec<String> {
    let (family, is_v4) = if address.address().is_ipv4() { ("ipv4", true) } else { ("ipv6", false) };
    let gateway = network.gateways.iter().find(|gateway| gateway.is_ipv4() == is_v4);
    let mut options = vec![format!("--{prefix}{family}={address}")];
    options.extend(gateway.map(|gateway| format!("--{prefix}{family}-gateway={gateway}")));
    options
}

/// Quotes a word where it needs it.
fn quote(word: &str) -> String {
    if word.contains([' ', '"', '\\']) {
        format!("\"{}\"", word.replace('\\', r"\\").replace('"', "\\\""))
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Machine, Monitor,
        guest::tests::{machine, network},
    };

    fn line(workload: &Workload, machine: &Machine) -> Result<String, EncodeError> {
        let boot = workload.boot(machine, Monitor::Solo5Hvt, crate::Arch::X86_64)?;
        Ok(boot.command_line.as_str().to_owned())
    }

    #[test]
    fn an_address_comes_first_and_arguments_keep_their_borders() {
        let args = ["a", "b c", r#"say "hi" \o"#].map(str::to_owned).to_vec();
        let workload = Workload { networks: vec![network()], ..Workload::new(GUEST, args) };
        assert_eq!(
            line(&workload, &machine()).unwrap(),
            r#"--ipv4=10.0.0.2/24 --ipv4-gateway=10.0.0.1 a "b c" "say \"hi\" \\o""#
        );
        let workload = Workload::new(GUEST, vec![String::new()]);
        assert!(matches!(line(&workload, &machine()), Err(EncodeError::Empty { .. })));
    }

    #[test]
    fn a_device_that_the_image_names_has_options_of_its_own() {
        let mut machine = machine();
        machine.nets[0].declared_as = Some("lan".to_owned());
        let workload = Workload { networks: vec![network()], ..Workload::new(GUEST, vec![]) };
        assert_eq!(line(&workload, &machine).unwrap(), "--lan-ipv4=10.0.0.2/24 --lan-ipv4-gateway=10.0.0.1");
    }

    #[test]
    fn an_address_of_ipv6_alone_is_told() {
        let network = Network {
            addresses: vec!["fd00::2/64".parse().unwrap()],
            gateways: vec!["fd00::1".parse().unwrap()],
            ..Network::default()
        };
        let workload = Workload { networks: vec![network], ..Workload::new(GUEST, vec![]) };
        assert_eq!(line(&workload, &machine()).unwrap(), "--ipv6=fd00::2/64 --ipv6-gateway=fd00::1");
    }

    proptest! {
        #[test]
        fn parse_argv_reads_back_the_arguments(args in proptest::collection::vec("[ -~é]{1,8}", 0..5)) {
            let line = line(&Workload::new(GUEST, args.clone()), &machine()).unwrap();
            prop_assert_eq!(parse_argv(&line), args);
        }
    }

    /// The library's automaton.
    fn parse_argv(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
        for c in line.chars() {
            match c {
                c if escaped => {
                    word.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => quoted = !quoted,
                ' ' if !quoted => words.push(std::mem::take(&mut word)),
                c => word.push(c),
            }
        }
        words.push(word);
        words.retain(|word| !word.is_empty());
        words
    }
}
