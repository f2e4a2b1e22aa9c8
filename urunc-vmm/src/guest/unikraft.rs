//! Unikraft: `Unikraft PARAMETERS -- ARGUMENTS`, split at white space with quotes (unikraft `lib/ukargparse`,
//! `lib/uklibparam`, `lib/uknetdev`, `lib/vfscore`). Parameters changed their names with version 0.16.1.
//!
//! Firecracker puts words of its own before the first ` -- ` outside of double quotes, the only quotes that it knows
//! (linux-loader `src/cmdline`, `Cmdline::try_from`); what would lead it to another place is refused there.
//!
//! A kernel takes as many words as it was configured for (`LIBUKBOOT_MAXNBARGS`, 60 unless changed) and as many
//! variables; it drops the rest itself, which cannot be seen from here.

use super::{
    Board, Boot, EncodeError, Guest, Item, Omission, Platform, PowerButton, Workload,
    network::Ipv4,
    omission::Carries,
    text::{COMMAND_LINE, finish, is_control, refuse, refuse_empty, refuse_without_ipv4, variable},
    workload::{Place, refuse_root, refuse_volumes},
};
use crate::{Arch, Monitor, guest::Root};

const GUEST: Guest = Guest::Unikraft;

pub(super) fn boot(workload: &Workload, place: Place<'_>) -> Result<Boot, EncodeError> {
    refuse_volumes(workload, "it has no driver for disks here: put the files into the initrd")?;
    let syntax = Syntax::of(workload.version.as_deref());
    // The first word is the program's name.
    let mut words = vec!["Unikraft".to_owned()];
    if place.arch == Arch::Aarch64 && syntax == Syntax::Current {
        words.push("console=ttyS0".to_owned());
    }
    let mut carries = Carries { arguments: true, ..Carries::default() };
    match syntax {
        Syntax::Current => {
            (carries.environment, carries.name_servers) = (true, 2);
            words.extend(environment(&workload.env, place)?);
            words.extend(networks(workload)?);
            words.extend(fstab(workload, place)?.map(|tab| format!(r#"vfs.fstab=[ "{tab}" ]"#)));
        }
        Syntax::Old => words.extend(old_parameters(workload)?),
    }
    if workload.args.is_empty() && place.monitor == Monitor::Firecracker {
        return Err(EncodeError::Unsupported {
            what: "no arguments under firecracker".to_owned(),
            guest: GUEST,
            remedy: "firecracker would make arguments of its own kernel parameters; give it one, or use qemu",
        });
    }
    // Without it, the kernel takes every word for an argument.
    words.push("--".to_owned());
    for (index, argument) in workload.args.iter().enumerate() {
        let item = || Item::argument(index, argument);
        refuse_empty(GUEST, COMMAND_LINE, item, argument)?;
        words.push(quote(item, argument)?);
    }
    let platform =
        Platform { board: Board::Common, power_button: PowerButton::Ignored, ..Platform::default() };
    let mut omitted = carries.omitted(workload);
    if syntax == Syntax::Old && workload.networks.iter().any(|network| !network.name_servers.is_empty()) {
        omitted.push(Omission::NameServers);
        omitted.dedup();
    }
    finish(GUEST, &words, platform, omitted)
}

/// The names of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    /// Before 0.16.1.
    Old,
    Current,
}

impl Syntax {
    /// A version that is not given, or is no version, is taken for a current one.
    fn of(version: Option<&str>) -> Self {
        let numbers = |version: &str| -> Option<[u64; 3]> {
            let mut parts = version.trim_start_matches('v').splitn(3, '.');
            let mut number = || parts.next().map_or(Some(0), |part| digits(part).parse().ok());
            Some([number()?, number()?, number()?])
        };
        match version.and_then(numbers) {
            Some(version) if version < [0, 16, 1] => Self::Old,
            _ => Self::Current,
        }
    }
}

/// Returns the number that a part of a version starts with, without `-rc1` and the like.
fn digits(part: &str) -> &str {
    part.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default()
}

fn environment(env: &[String], place: Place<'_>) -> Result<Option<String>, EncodeError> {
    if env.is_empty() {
        return Ok(None);
    }
    let mut words = vec!["env.vars=[".to_owned()];
    for entry in env {
        let (name, _) = variable(GUEST, entry)?;
        let item = || Item::Environment(name.to_owned());
        // The parser takes a bracket at the end of a word for the end of the list, quoted or not.
        let last = entry.chars().next_back().map_or(String::new(), String::from);
        refuse(GUEST, "list of variables", item, &last, |c| c == ']')?;
        let word = quote(item, entry)?;
        if place.monitor == Monitor::Firecracker && !is_whole_for_firecracker(&word) {
            return Err(EncodeError::Unsupported {
                what: format!("the environment variable {name:?} under firecracker"),
                guest: GUEST,
                remedy: "firecracker would put kernel parameters of its own into a value with \" -- \" or an odd number of \
                         double quotes, or behind the arguments; use qemu",
            });
        }
        words.push(word);
    }
    words.push("]".to_owned());
    Ok(Some(words.join(" ")))
}

/// Tells whether the separator is still the first one for Firecracker with this word before it.
fn is_whole_for_firecracker(word: &str) -> bool {
    let balanced = |text: &str| text.matches('"').count().is_multiple_of(2);
    let separator = |(position, _)| word.get(..position).is_some_and(balanced);
    balanced(word) && !word.match_indices(" -- ").any(separator)
}

fn networks(workload: &Workload) -> Result<Option<String>, EncodeError> {
    let mut values = Vec::new();
    for network in &workload.networks {
        refuse_without_ipv4(GUEST, network)?;
        values.extend(network.ipv4().as_ref().map(interface));
    }
    Ok(match values.as_slice() {
        [] => None,
        [value] => Some(format!("netdev.ip={value}")),
        values => Some(format!("netdev.ip=[ {} ]", values.join(" "))),
    })
}

/// `cidr[:gw[:dns0[:dns1[:hostname[:domain]]]]]`, of which the later ones are left off where they are empty.
fn interface(ipv4: &Ipv4) -> String {
    let mut fields = vec![
        format!("{}/{}", ipv4.address, ipv4.prefix),
        ipv4.gateway.map_or_else(String::new, |gateway| gateway.to_string()),
    ];
    fields.extend(ipv4.name_servers.iter().take(2).map(ToString::to_string));
    while fields.last().is_some_and(String::is_empty) {
        fields.pop();
    }
    fields.join(":")
}

fn fstab(workload: &Workload, place: Place<'_>) -> Result<Option<String>, EncodeError> {
    match &workload.root {
        Root::None => Ok(None),
        Root::Initrd => Ok(Some("initrd0:/:extract:::".to_owned())),
        Root::Share(tag) => Ok(Some(format!("{}:/:9pfs:::", place.nine_p(tag, GUEST)?.tag))),
        Root::Disk { .. } => refuse_root(workload, "use an initrd or 9p"),
    }
}

fn old_parameters(workload: &Workload) -> Result<Vec<String>, EncodeError> {
    let mut words = Vec::new();
    if let Some(network) = super::workload::only_network(workload)? {
        refuse_without_ipv4(GUEST, network)?;
        if let Some(ipv4) = network.ipv4() {
            words.push(format!("netdev.ipv4_addr={}", ipv4.address));
            words.extend(ipv4.gateway.map(|gateway| format!("netdev.ipv4_gw_addr={gateway}")));
            words.push(format!("netdev.ipv4_subnet_mask={}", ipv4.netmask()));
        }
    }
    match workload.root {
        Root::None => {}
        Root::Initrd => words.push("vfs.rootfs=initrd".to_owned()),
        Root::Share(_) | Root::Disk { .. } => return refuse_root(workload, "before 0.16.1: use an initrd"),
    }
    Ok(words)
}

/// Quotes a word where it needs it. Within single quotes everything stands for itself; within double quotes
/// all but backslashes did before escapes came (2023), so what holds both quotes cannot be told to every version.
fn quote(item: impl Fn() -> Item, word: &str) -> Result<String, EncodeError> {
    refuse(GUEST, COMMAND_LINE, &item, word, is_control)?;
    if !word.contains([' ', '\'', '"', '\\']) {
        return Ok(word.to_owned());
    }
    if !word.contains('\'') {
        return Ok(format!("'{word}'"));
    }
    refuse(GUEST, "command line, beside a single quote,", item, word, |c| c == '"' || c == '\\')?;
    Ok(format!("\"{word}\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guest::tests::{after_firecracker, machine, network};

    fn line(workload: &Workload) -> Result<String, EncodeError> {
        let boot = workload.boot(&machine(), Monitor::Qemu, Arch::X86_64)?;
        Ok(boot.command_line.as_str().to_owned())
    }

    fn workload() -> Workload {
        Workload {
            version: Some("0.17.0".to_owned()),
            networks: vec![network()],
            env: vec!["A=1".to_owned()],
            ..Workload::new(GUEST, vec!["a".to_owned(), "b c".to_owned()])
        }
    }

    #[test]
    fn parameters_come_before_the_separator_and_arguments_after_it() {
        let mut workload = workload();
        workload.networks[0].name_servers = vec!["8.8.8.8".parse().unwrap()];
        workload.root = Root::Initrd;
        assert_eq!(
            line(&workload).unwrap(),
            "Unikraft env.vars=[ A=1 ] netdev.ip=10.0.0.2/24:10.0.0.1:8.8.8.8 \
             vfs.fstab=[ \"initrd0:/:extract:::\" ] -- a 'b c'"
        );
        workload.root = Root::Share("fs0".parse().unwrap());
        assert!(line(&workload).unwrap().contains(r#"vfs.fstab=[ "fs0:/:9pfs:::" ]"#));
    }

    /// Weakness 30 of the monitors reference: a network without an address gave `netdev.ip=/24::8.8.8.8`.
    #[test]
    fn nothing_is_said_about_a_network_that_is_not_there() {
        let workload = Workload { networks: vec![], env: vec![], ..workload() };
        assert_eq!(line(&workload).unwrap(), "Unikraft -- a 'b c'");
    }

    #[test]
    fn old_versions_get_the_old_names() {
        let workload = Workload { version: Some("v0.15.0-rc2".to_owned()), root: Root::Initrd, ..workload() };
        let boot = workload.boot(&machine(), Monitor::Qemu, Arch::X86_64).unwrap();
        assert_eq!(
            boot.command_line.as_str(),
            "Unikraft netdev.ipv4_addr=10.0.0.2 netdev.ipv4_gw_addr=10.0.0.1 \
             netdev.ipv4_subnet_mask=255.255.255.0 vfs.rootfs=initrd -- a 'b c'"
        );
        assert_eq!(boot.omitted, [Omission::Environment]);
        for (version, old) in [
            ("0.16.0", true),
            ("0.16", true),
            ("0.16.1", false),
            ("0.16.10", false),
            ("0.100", false),
            ("1", false),
            ("latest", false),
        ] {
            assert_eq!(Syntax::of(Some(version)) == Syntax::Old, old, "{version}");
        }
    }

    #[test]
    fn an_environment_value_cannot_become_a_parameter() {
        let injected = "A=1 ] netdev.ip=6.6.6.6/0 -- evil".to_owned();
        let words = unquote(&line(&Workload { env: vec![injected.clone()], ..workload() }).unwrap());
        assert_eq!(words[1..4], ["env.vars=[".to_owned(), injected, "]".to_owned()]);
        let refused = line(&Workload { env: vec!["A=x]".to_owned()], ..workload() }).unwrap_err().to_string();
        assert_eq!(
            refused,
            "environment variable \"A\" contains the character ']', which the list of variables of a unikraft \
             guest cannot carry"
        );
    }

    proptest! {
        #[test]
        fn the_kernel_reads_back_arguments_and_variables(
            args in proptest::collection::vec("[ -~é]{1,8}", 0..4),
            env in proptest::collection::vec("[A-Z]{1,3}=[ -~]{0,8}", 0..4),
        ) {
            let workload = Workload { env: env.clone(), ..Workload::new(GUEST, args.clone()) };
            if let Ok(line) = line(&workload) {
                let words = unquote(&line);
                let mut expected = vec!["Unikraft".to_owned()];
                if !env.is_empty() {
                    expected.push("env.vars=[".to_owned());
                    expected.extend(env);
                    expected.push("]".to_owned());
                }
                expected.push("--".to_owned());
                expected.extend(args);
                prop_assert_eq!(words, expected);
            }
        }
    }

    fn under_firecracker(workload: &Workload) -> Result<String, EncodeError> {
        let boot = workload.boot(&machine(), Monitor::Firecracker, Arch::X86_64)?;
        Ok(boot.command_line.as_str().to_owned())
    }

    #[test]
    fn what_firecracker_would_put_its_words_into_is_refused() {
        for value in ["x -- y", "x\"", "\"a\"\"", "it's -- x"] {
            let workload = Workload { env: vec![format!("A={value}")], ..workload() };
            line(&workload).unwrap();
            let fits = value.starts_with("it's");
            let refused = under_firecracker(&workload).map_err(|error| error.to_string());
            assert_eq!(refused.is_ok(), fits, "{value}: {refused:?}");
            if let Err(message) = refused {
                assert!(message.contains("the environment variable \"A\" under firecracker"), "{message}");
            }
        }
        // They were arguments.
        let workload = Workload::new(GUEST, vec![]);
        line(&workload).unwrap();
        assert!(matches!(under_firecracker(&workload), Err(EncodeError::Unsupported { .. })));
    }

    proptest! {
        #[test]
        fn the_words_of_firecracker_are_parameters_and_nothing_else_changes(
            args in proptest::collection::vec("( -- |[ -~]){1,4}", 1..4),
            env in proptest::collection::vec("[A-Z]=( -- |[ -~]|\"){0,4}", 0..4),
        ) {
            let workload = Workload { env, networks: vec![network()], ..Workload::new(GUEST, args.clone()) };
            if let Ok(line) = under_firecracker(&workload) {
                let (before, after) = (unquote(&line), unquote(&after_firecracker(&line)));
                let end = before.len() - args.len() - 1;
                prop_assert_eq!(&after[..end], &before[..end]);
                prop_assert_eq!(&after[end..end + 2], ["pci=off", "virtio_mmio.device=4K@0xc0001000:5"]);
                prop_assert_eq!(&after[end + 2..], &before[end..]);
            }
        }
    }

    /// Unikraft's splitting, in the version before escapes within double quotes.
    fn unquote(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for c in line.chars() {
            match (c, quote) {
                ('\'' | '"', None) => quote = Some(c),
                (c, Some(open)) if c == open => quote = None,
                (' ', None) => words.push(std::mem::take(&mut word)),
                (c, _) => word.push(c),
            }
        }
        words.push(word);
        words.retain(|word| !word.is_empty());
        words
    }
}
