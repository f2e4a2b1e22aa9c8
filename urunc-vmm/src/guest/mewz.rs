//! Mewz: a command line of `ip=` and `gateway=` only (mewz `src/param.zig`). It knows neither arguments nor
//! environment, and ends through `isa-debug-exit`, always with an odd status.

use super::{
    Board, Boot, EncodeError, ExitPort, Guest, Platform, PowerButton, VirtioPci, Workload,
    omission::Carries,
    text::{finish, refuse_without_ipv4},
    workload::{Place, only_network, refuse_root, refuse_volumes},
};
use crate::guest::Root;

const GUEST: Guest = Guest::Mewz;

pub(super) fn boot(workload: &Workload, _place: Place<'_>) -> Result<Boot, EncodeError> {
    refuse_volumes(workload, "it mounts none")?;
    if workload.root != Root::None {
        return refuse_root(workload, "its files are in its kernel");
    }
    let mut words = Vec::new();
    if let Some(network) = only_network(workload)? {
        refuse_without_ipv4(GUEST, network)?;
        if let Some(ipv4) = network.ipv4() {
            words.push(format!("ip={}/{}", ipv4.address, ipv4.prefix));
            words.extend(ipv4.gateway.map(|gateway| format!("gateway={gateway}")));
        }
    }
    let platform = Platform {
        board: Board::Common,
        virtio_pci: VirtioPci::Modern,
        exit_port: ExitPort::DebugExit,
        power_button: PowerButton::Ignored,
    };
    finish(GUEST, &words, platform, Carries::default().omitted(workload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::tests::{machine, network};

    #[test]
    fn only_the_network_is_told() {
        let workload = Workload {
            networks: vec![network()],
            env: vec!["A=1".to_owned()],
            ..Workload::new(GUEST, vec!["a".to_owned()])
        };
        let boot = workload.boot(&machine(), crate::Monitor::Qemu, crate::Arch::X86_64).unwrap();
        assert_eq!(boot.command_line.as_str(), "ip=10.0.0.2/24 gateway=10.0.0.1");
        assert_eq!(boot.omitted, [crate::Omission::Arguments, crate::Omission::Environment]);
    }
}
