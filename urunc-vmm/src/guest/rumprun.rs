//! Rumprun: one line of JSON whose strings the guest does not unescape (rumprun `lib/librumprun_base/config.c`,
//! `parseargs.c`, and its JSON parser `jsmn`). So the text between two quotes is what the guest gets, and where a
//! format of its own follows (the arguments), its escapes must be valid JSON escapes at the same time.
//!
//! `env` is a key for each variable, repeated: every occurrence is put into the environment.

use super::{
    Boot, EncodeError, Guest, Item, Network, Platform, PowerButton, Root, Workload,
    network::Ipv4,
    omission::{Addresses, Carries},
    text::{finish, is_control, refuse, variable},
    workload::{Place, only_network},
};

const GUEST: Guest = Guest::Rumprun;
const FORMAT: &str = "JSON configuration";
/// Anywhere in the line, this makes the guest read its configuration from a file system instead.
const CONFIG_FROM_ROOT: &str = "_RUMPRUN_ROOTFSCFG=";

pub(super) fn boot(workload: &Workload, place: Place<'_>) -> Result<Boot, EncodeError> {
    let mut fields = vec![field("cmdline", &arguments(workload)?)];
    for entry in &workload.env {
        let (name, _) = variable(GUEST, entry)?;
        fields.push(field("env", raw(|| Item::Environment(name.to_owned()), entry)?));
    }
    if !workload.hostname.is_empty() {
        let hostname = raw(|| Item::Named("the host name"), &workload.hostname)?;
        fields.push(field("hostname", hostname));
    }
    if let Some(network) = only_network(workload)? {
        fields.extend(interface(network)?);
    }
    fields.extend(block(workload, place)?);
    let line = format!("{{{}}}", fields.join(","));
    if line.contains(CONFIG_FROM_ROOT) {
        return Err(EncodeError::Unsupported {
            what: format!("the text {CONFIG_FROM_ROOT} in an argument or variable"),
            guest: GUEST,
            remedy: "it would read another configuration than this one",
        });
    }
    let platform = Platform { power_button: PowerButton::Ignored, ..Platform::default() };
    let carries = Carries {
        arguments: true,
        environment: true,
        hostname: true,
        addresses: Addresses::Either,
        ..Carries::default()
    };
    finish(GUEST, &[line], platform, carries.omitted(workload))
}

/// One field of an object; key and value are taken as they are.
fn field(key: &str, value: &str) -> String {
    format!("\"{key}\":\"{value}\"")
}

fn object(key: &str, fields: &[String]) -> String {
    format!("\"{key}\":{{{}}}", fields.join(","))
}

/// A value that stands for itself: the guest would keep the backslash of an escape.
fn raw(item: impl Fn() -> Item, value: &str) -> Result<&str, EncodeError> {
    refuse(GUEST, FORMAT, item, value, |c| c == '"' || c == '\\' || c.is_control())?;
    Ok(value)
}

/// The guest splits this at white space, with quotes and backslashes. Of those escapes, `\"` and `\\` are also
/// JSON's; a single quote cannot be escaped in a way that is valid in both.
fn arguments(workload: &Workload) -> Result<String, EncodeError> {
    let mut words = Vec::new();
    for (index, argument) in workload.args.iter().enumerate() {
        let item = || Item::argument(index, argument);
        refuse(GUEST, FORMAT, item, argument, |c| c == '\'' || is_control(c))?;
        let escaped = argument.replace('\\', r"\\").replace('"', "\\\"");
        let plain = !argument.is_empty() && !argument.contains(' ');
        words.push(if plain { escaped } else { format!("'{escaped}'") });
    }
    Ok(words.join(" "))
}

/// The guest configures one interface, for IPv4 or for IPv6.
fn interface(network: &Network) -> Result<Option<String>, EncodeError> {
    let values = match network.ipv4() {
        Some(ipv4) => {
            let mask = mask(&ipv4)?.to_string();
            Some(("inet", ipv4.address.to_string(), mask, ipv4.gateway.map(|gateway| gateway.to_string())))
        }
        None => network.addresses.first().map(|address| {
            let gateway = network.gateways.iter().find(|gateway| gateway.is_ipv6());
            let (address, prefix) = (address.address().to_string(), address.prefix().to_string());
            ("inet6", address, prefix, gateway.map(|gateway| gateway.to_string()))
        }),
    };
    Ok(values.map(|(family, address, mask, gateway)| {
        let mut fields = vec![
            field("if", "ukvmif0"),
            field("cloner", "True"),
            field("type", family),
            field("method", "static"),
            field("addr", &address),
            field("mask", &mask),
        ];
        fields.extend(gateway.map(|gateway| field("gw", &gateway)));
        object("net", &fields)
    }))
}

/// The guest refuses a gateway outside its network, so the network is widened to hold it. A prefix of no bits would
/// be misread as 32 (it shifts by 32).
fn mask(ipv4: &Ipv4) -> Result<u8, EncodeError> {
    match if ipv4.gateway_is_on_link() { ipv4.prefix } else { ipv4.prefix_with_gateway() } {
        0 => Err(EncodeError::Unsupported {
            what: format!(
                "the address {}/{} with gateway {}",
                ipv4.address,
                ipv4.prefix,
                ipv4.gateway.map_or_else(|| "none".to_owned(), |gateway| gateway.to_string())
            ),
            guest: GUEST,
            remedy: "give it a network with a prefix that holds both",
        }),
        prefix => Ok(prefix),
    }
}

/// The guest mounts one disk, the first, and never as its root.
fn block(workload: &Workload, place: Place<'_>) -> Result<Option<String>, EncodeError> {
    let mount_point = match (&workload.root, workload.volumes.as_slice()) {
        (Root::None, []) => return Ok(None),
        (Root::Disk { id, .. }, []) => {
            place.disk(id, GUEST)?;
            "/data"
        }
        (Root::None, [volume]) => {
            place.disk(&volume.disk, GUEST)?;
            raw(|| Item::Named("the mount point of the volume"), &volume.mount_point)?
        }
        (Root::Initrd | Root::Share(_), _) => {
            return super::workload::refuse_root(workload, "use a disk");
        }
        (_, volumes) => {
            return Err(EncodeError::Unsupported {
                what: format!("{} volumes beside its root", volumes.len()),
                guest: GUEST,
                remedy: "it mounts one disk",
            });
        }
    };
    Ok(Some(object(
        "blk",
        &[
            field("source", "etfs"),
            field("path", "/dev/ld0a"),
            field("fstype", "blk"),
            field("mountpoint", mount_point),
        ],
    )))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Arch, Monitor,
        guest::tests::{machine, network},
    };

    fn line(workload: &Workload) -> Result<String, EncodeError> {
        let boot = workload.boot(&machine(), Monitor::Solo5Spt, Arch::X86_64)?;
        Ok(boot.command_line.as_str().to_owned())
    }

    fn workload() -> Workload {
        Workload {
            networks: vec![network()],
            env: vec!["A=1".to_owned(), "B=2".to_owned()],
            root: Root::Disk { id: "rootfs".parse().unwrap(), file_system: None },
            ..Workload::new(GUEST, vec!["a".to_owned(), "b c".to_owned()])
        }
    }

    #[test]
    fn everything_is_in_one_line_of_json() {
        assert_eq!(
            line(&workload()).unwrap(),
            concat!(
                r#"{"cmdline":"a 'b c'","env":"A=1","env":"B=2","#,
                r#""net":{"if":"ukvmif0","cloner":"True","type":"inet","method":"static","addr":"10.0.0.2","#,
                r#""mask":"24","gw":"10.0.0.1"},"#,
                r#""blk":{"source":"etfs","path":"/dev/ld0a","fstype":"blk","mountpoint":"/data"}}"#
            )
        );
    }

    #[test]
    fn a_gateway_outside_the_network_widens_it() {
        let mut workload = workload();
        workload.networks[0].addresses = vec!["192.168.1.2/24".parse().unwrap()];
        workload.networks[0].gateways = vec!["169.254.1.1".parse().unwrap()];
        assert!(line(&workload).unwrap().contains(r#""mask":"1","gw":"169.254.1.1""#));
        workload.networks[0].addresses = vec!["10.0.0.2/24".parse().unwrap()];
        assert!(line(&workload).unwrap_err().to_string().contains("10.0.0.2/24 with gateway 169.254.1.1"));
    }

    #[test]
    fn what_its_json_cannot_carry_is_refused() {
        for (env, message) in [
            ("A=\"", "environment variable \"A\" contains a double quote"),
            ("A=\\n", "environment variable \"A\" contains a backslash"),
            ("A=\n", "environment variable \"A\" contains a newline"),
            ("A=_RUMPRUN_ROOTFSCFG=/x", "the text _RUMPRUN_ROOTFSCFG="),
        ] {
            let error = line(&Workload { env: vec![env.to_owned()], ..workload() }).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let error = line(&Workload::new(GUEST, vec!["it's".to_owned()])).unwrap_err().to_string();
        assert!(error.contains("a single quote"), "{error}");
    }

    proptest! {
        #[test]
        fn no_value_adds_or_drops_a_field_and_arguments_are_read_back(
            args in proptest::collection::vec("[ -~é]{0,8}", 0..4),
            env in proptest::collection::vec("[A-Z]{1,3}=[ -~]{0,8}", 0..4),
        ) {
            let given = Workload { args: args.clone(), env: env.clone(), ..workload() };
            if let Ok(line) = line(&given) {
                // Any JSON parser agrees on the fields; duplicates are seen by a visitor of pairs.
                let pairs = raw_strings(&line);
                prop_assert_eq!(parse_args(&pairs[1]), args);
                let found: Vec<_> = pairs.chunks(2).filter(|p| p[0] == "env").map(|p| p[1].clone()).collect();
                prop_assert_eq!(found, env);
            }
        }
    }

    /// The strings of a line of JSON as the guest's parser sees them: nothing is unescaped.
    fn raw_strings(line: &str) -> Vec<String> {
        let (mut strings, mut string, mut escaped) = (Vec::new(), None::<String>, false);
        for c in line.chars() {
            match (&mut string, c) {
                (Some(_), '"') if !escaped => strings.extend(string.take()),
                (Some(open), c) => {
                    assert!(!escaped || c == '"' || c == '\\', "{line}");
                    escaped = c == '\\' && !escaped;
                    open.push(c);
                }
                (None, '"') => string = Some(String::new()),
                (None, _) => {}
            }
        }
        strings
    }

    /// The guest's splitting of arguments.
    fn parse_args(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match (c, quote) {
                ('\\', _) => word.get_or_insert_default().push(chars.next().unwrap()),
                (c, Some(open)) if c == open => quote = None,
                (' ', None) => words.extend(word.take()),
                ('\'' | '"', None) => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (c, _) => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        words
    }
}
