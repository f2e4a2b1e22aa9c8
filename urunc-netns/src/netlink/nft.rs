//! One nf_tables table that hides a subnet behind an interface's address
//! (linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h).
//!
//! It is spoken over netlink rather than with the `nft` program: no program needs to be on the host or in its
//! PATH, a table with all its contents appears and disappears in one transaction, and the kernel's reason for
//! a refusal is not lost (N12, N13).

use std::net::Ipv4Addr;

use neli::consts::nl::NlmF;
use neli::consts::socket::NlFamily;
use rustix::io::Errno;

use super::error::gone;
use super::wire::{Payload, attribute, until_zero};
use super::{NetlinkError, Socket};
use crate::names::Interface;
use crate::run::Here;

// linux/netfilter/nfnetlink.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
/// linux/netfilter.h.
const NFPROTO_IPV4: u8 = 2;
const NF_INET_POST_ROUTING: u32 = 4;
/// linux/netfilter_ipv4.h.
const NF_IP_PRI_NAT_SRC: u32 = 100;
// linux/netfilter/nf_tables.h: messages.
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
// Attributes; those of name and table are number 1 of all three objects.
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
// Expressions.
const NFT_REG_1: u32 = 1;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFT_META_OIF: u32 = 5;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFT_CMP_EQ: u32 = 0;
const NFTA_DATA_VALUE: u16 = 1;
/// Where an IPv4 header has its source address (RFC 791).
const IPV4_SOURCE: u32 = 12;

const CHAIN: &str = "postrouting";

/// A message of a batch.
type Message = (u16, NlmF, Payload);

/// Makes the table, or makes it anew if it is there: what is sent from `subnet` (its first three bytes, so a
/// /24) and leaves through `uplink` gets that interface's address. Doing it twice changes nothing.
pub(crate) fn masquerade(
    here: &Here,
    table: &str,
    subnet: Ipv4Addr,
    uplink: &Interface,
) -> Result<(), NetlinkError> {
    let attempt = format_args!("make nftables table {table}, which masquerades behind {uplink}");
    let contents = || {
        [
            message(NFT_MSG_NEWCHAIN, NlmF::CREATE, chain(table)),
            message(NFT_MSG_NEWRULE, NlmF::CREATE | NlmF::APPEND, rule(table, subnet, uplink)),
        ]
    };
    let exclusive = message(NFT_MSG_NEWTABLE, NlmF::CREATE | NlmF::EXCL, named(table));
    match transact(here, attempt, [vec![exclusive], contents().into()].concat()) {
        // Ours by its name, from an earlier start: this transaction says "the new one, instead of the old". It
        // waits for a grace period of the kernel's, some 10 ms, which is why it is not the first choice.
        Err(error) if error.is(&[Errno::EXIST]) => {
            let delete = message(NFT_MSG_DELTABLE, NlmF::empty(), named(table));
            let make = message(NFT_MSG_NEWTABLE, NlmF::CREATE, named(table));
            transact(here, attempt, [vec![delete, make], contents().into()].concat())
        }
        result => result,
    }
}

/// Deletes the table with all it holds; success if it is not there.
pub(crate) fn delete_table(here: &Here, table: &str) -> Result<(), NetlinkError> {
    let delete = message(NFT_MSG_DELTABLE, NlmF::empty(), named(table));
    gone(transact(here, format_args!("delete nftables table {table}"), vec![delete]), &[Errno::NOENT])
}

/// The names of all tables for IPv4.
pub(crate) fn tables(here: &Here) -> Result<Vec<String>, NetlinkError> {
    let read = |body: &[u8]| {
        let name = attribute(body.get(header().into_bytes().len()..)?, NFTA_TABLE_NAME)?;
        String::from_utf8(until_zero(name).to_vec()).ok()
    };
    let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE;
    let mut socket = Socket::open(here, NlFamily::Netfilter)?;
    socket.dump(format_args!("list the nftables tables"), kind, &header(), read)
}

/// Sends the changes as one transaction; the last one is asked to be acknowledged.
fn transact(
    here: &Here,
    attempt: std::fmt::Arguments<'_>,
    mut changes: Vec<Message>,
) -> Result<(), NetlinkError> {
    if let Some((_, flags, _)) = changes.last_mut() {
        *flags |= NlmF::ACK;
    }
    // `struct nfgenmsg` of a border names the subsystem, in network byte order.
    let border = || Payload::new(&[[0, 0], NFNL_SUBSYS_NFTABLES.to_be_bytes()].concat());
    changes.insert(0, (NFNL_MSG_BATCH_BEGIN, NlmF::empty(), border()));
    changes.push((NFNL_MSG_BATCH_END, NlmF::empty(), border()));
    Socket::open(here, NlFamily::Netfilter)?.batch(attempt, changes)
}

fn message(kind: u16, flags: NlmF, payload: Payload) -> Message {
    (NFNL_SUBSYS_NFTABLES << 8 | kind, flags, payload)
}

/// `struct nfgenmsg`: family, version 0, no resource.
fn header() -> Payload {
    Payload::new(&[NFPROTO_IPV4, 0, 0, 0])
}

/// What is said about a table: its name.
fn named(table: &str) -> Payload {
    header().text(NFTA_TABLE_NAME, table)
}

/// The place where packets leave, after routing.
fn chain(table: &str) -> Payload {
    let hook = |p: Payload| {
        p.be32(NFTA_HOOK_HOOKNUM, NF_INET_POST_ROUTING).be32(NFTA_HOOK_PRIORITY, NF_IP_PRI_NAT_SRC)
    };
    header()
        .text(NFTA_CHAIN_TABLE, table)
        .text(NFTA_CHAIN_NAME, CHAIN)
        .nest(NFTA_CHAIN_HOOK, hook)
        .text(NFTA_CHAIN_TYPE, "nat")
}

/// `ip saddr SUBNET/24 oif UPLINK masquerade`, as the nft program would put it.
fn rule(table: &str, subnet: Ipv4Addr, uplink: &Interface) -> Payload {
    let [a, b, c, _] = subnet.octets();
    let source = |p: Payload| {
        p.be32(NFTA_PAYLOAD_DREG, NFT_REG_1)
            .be32(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER)
            .be32(NFTA_PAYLOAD_OFFSET, IPV4_SOURCE)
            .be32(NFTA_PAYLOAD_LEN, 3)
    };
    let way_out = |p: Payload| p.be32(NFTA_META_DREG, NFT_REG_1).be32(NFTA_META_KEY, NFT_META_OIF);
    let expressions = |list: Payload| {
        let list = equals(expression(list, "payload", source), &[a, b, c]);
        let list = equals(expression(list, "meta", way_out), &uplink.index.get().to_ne_bytes());
        expression(list, "masq", |p| p)
    };
    header()
        .text(NFTA_RULE_TABLE, table)
        .text(NFTA_RULE_CHAIN, CHAIN)
        .nest(NFTA_RULE_EXPRESSIONS, expressions)
}

/// Adds an expression to a rule.
fn expression(rule: Payload, name: &str, data: impl FnOnce(Payload) -> Payload) -> Payload {
    rule.nest(NFTA_LIST_ELEM, |e| e.text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, data))
}

/// Adds the condition that the register holds `value`.
fn equals(rule: Payload, value: &[u8]) -> Payload {
    expression(rule, "cmp", |p| {
        p.be32(NFTA_CMP_SREG, NFT_REG_1)
            .be32(NFTA_CMP_OP, NFT_CMP_EQ)
            .nest(NFTA_CMP_DATA, |data| data.attr(NFTA_DATA_VALUE, value))
    })
}
