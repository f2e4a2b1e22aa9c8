//! Traffic control: the ingress hook of an interface and the filter there that sends every frame elsewhere
//! (linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h).
//!
//! The filter is `u32`, for `matchall` is missing on some kernels, and it has no keys: one with a key of mask 0
//! reads four bytes to compare none of them, and so misses frames of fewer (`u32_classify`, net/sched/cls_u32.c).

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Rtm, Tca};
use rustix::io::Errno;

use super::error::gone;
use super::wire::{Payload, attribute, u32_at, until_zero};
use super::{Change, NetlinkError, Socket};
use crate::attachment::Qdisc;
use crate::names::{IfIndex, Interface};
use crate::owner::Mark;

/// Our filters' priority, "ur" in ASCII: after whatever a CNI plugin puts there on purpose with a small number,
/// before what the kernel numbers by itself (from 0xc000 down), and unlike either.
pub(crate) const PRIORITY: u16 = 0x7572;
/// Node 1 of the filter's own table. Without a fixed node a second request would quietly add a duplicate.
const NODE: u32 = 1;

// linux/pkt_sched.h.
const TC_H_INGRESS: u32 = 0xffff_fff1;
const TC_H_INGRESS_HANDLE: u32 = 0xffff_0000;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`: the ingress side of a clsact qdisc, and as good a name for the
/// only side of an ingress qdisc.
const INGRESS_SIDE: u32 = 0xffff_fff2;
/// linux/if_ether.h.
const ETH_P_ALL: u16 = 0x0003;
// linux/pkt_cls.h.
const TC_U32_TERMINAL: u8 = 1;
const TCA_U32_CLASSID: u16 = 1;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_ACT_COOKIE: u16 = 6;
const TC_ACT_STOLEN: u32 = 4;
/// Actions are numbered from 1 in their list.
const FIRST_ACTION: u16 = 1;
// linux/tc_act/tc_mirred.h.
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_EGRESS_REDIR: u32 = 1;

/// A filter's class, which says whose the qdisc beneath it is: a qdisc itself has no room for a mark. To a filter whose
/// action takes the frame away, the class means nothing else.
const fn class(qdisc: Qdisc) -> u32 {
    match qdisc {
        Qdisc::Made => 1,
        Qdisc::Found => 2,
    }
}

/// What an interface has at its ingress hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IngressQdisc {
    /// `ingress`.
    Ingress,
    /// `clsact`, or whatever else a future kernel may hang there.
    Other,
}

/// A filter at an interface's ingress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) handle: u32,
    pub(crate) priority: u16,
    /// Who put it there, if we did.
    pub(crate) mark: Option<Mark>,
    /// Where it redirects to; 0 if that interface is gone.
    pub(crate) target: Option<IfIndex>,
    /// Whether the ingress qdisc was made with it.
    pub(crate) qdisc: Qdisc,
}

/// `struct tcmsg` (linux/rtnetlink.h).
fn tcmsg(index: IfIndex, handle: u32, parent: u32, info: u32) -> Payload {
    let fields = [0, index.0, handle, parent, info];
    Payload::new(&fields.map(u32::to_ne_bytes).concat())
}

/// `tcm_info` of our filters: priority and protocol.
fn filter_info() -> u32 {
    u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be())
}

impl Socket {
    /// What hangs at the interface's ingress, if anything.
    pub(crate) fn ingress_qdisc(&mut self, of: &Interface) -> Result<Option<IngressQdisc>, NetlinkError> {
        let of_this = |message: &[u8]| {
            let (found, parent) = (u32_at(message.get(4..)?)?, u32_at(message.get(12..)?)?);
            let kind = until_zero(attribute(message.get(20..)?, Tca::Kind)?);
            let qdisc = if kind == b"ingress" { IngressQdisc::Ingress } else { IngressQdisc::Other };
            (found == of.index.0 && parent == TC_H_INGRESS).then_some(qdisc)
        };
        let request = tcmsg(of.index, 0, 0, 0);
        let found = self.dump(format_args!("list the qdiscs"), Rtm::Getqdisc, &request, of_this)?;
        Ok(found.first().copied())
    }

    /// Hangs an ingress qdisc at an interface that has none.
    pub(crate) fn add_ingress_qdisc(&mut self, to: &Interface) -> Result<(), NetlinkError> {
        let (attempt, kind, flags, request) = new_qdisc(to);
        self.change(format_args!("{attempt}"), kind, flags, request)
    }

    /// Takes the ingress qdisc off an interface; success if it or the interface is gone.
    pub(crate) fn delete_ingress_qdisc(&mut self, of: &Interface) -> Result<(), NetlinkError> {
        let request = tcmsg(of.index, TC_H_INGRESS_HANDLE, TC_H_INGRESS, 0).text(Tca::Kind, "ingress");
        let attempt = format_args!("delete the ingress qdisc of {of}");
        // EINVAL is how the kernel says that there is no qdisc of this name at this place.
        gone(
            self.change(attempt, Rtm::Delqdisc, NlmF::empty(), request),
            &[Errno::NOENT, Errno::NODEV, Errno::INVAL],
        )
    }

    /// All filters at an interface's ingress, of all priorities; none if it has no ingress hook.
    pub(crate) fn ingress_filters(&mut self, of: &Interface) -> Result<Vec<Filter>, NetlinkError> {
        let request = tcmsg(of.index, 0, INGRESS_SIDE, 0);
        self.dump(format_args!("list the ingress filters"), Rtm::Gettfilter, &request, read_filter)
    }

    /// Sends every frame that arrives at `from` out of `to` instead. `qdisc` says whose the qdisc beneath is.
    pub(crate) fn add_redirect(
        &mut self,
        from: &Interface,
        to: &Interface,
        mark: Mark,
        qdisc: Qdisc,
    ) -> Result<(), NetlinkError> {
        let (attempt, kind, flags, request) = new_redirect(from, to, mark, qdisc);
        self.change(format_args!("{attempt}"), kind, flags, request)
    }

    /// Hangs an ingress qdisc at `from` and the redirect into it. Both verdicts are given back, for somebody else may have
    /// made a qdisc or put a filter there since it was looked at.
    ///
    /// An empty qdisc is nobody's, so it must never be all that there is of ours: hence one datagram for both.
    pub(crate) fn add_qdisc_and_redirect(
        &mut self,
        from: &Interface,
        to: &Interface,
        mark: Mark,
    ) -> Result<[Result<(), NetlinkError>; 2], NetlinkError> {
        self.both([new_qdisc(from), new_redirect(from, to, mark, Qdisc::Made)])
    }

    /// Lets the redirect no longer say that the qdisc beneath was made with it.
    pub(crate) fn disown_qdisc(
        &mut self,
        from: &Interface,
        to: &Interface,
        mark: Mark,
    ) -> Result<(), NetlinkError> {
        for filter in self.ingress_filters(from)?.iter().filter(|filter| filter.is_own(mark)) {
            // To be changed, it must be named in full; its node alone is enough to make it.
            let request = redirect(filter.handle, from, to, mark, Qdisc::Found);
            let attempt = format_args!("leave the ingress qdisc of {from} to others");
            self.change(attempt, Rtm::Newtfilter, NlmF::empty(), request)?;
        }
        Ok(())
    }

    /// Removes the filters at an interface's ingress that carry the mark, and the qdisc beneath if they say that it was made
    /// with them, and `others` have nothing to do with it; success if all of that or the interface is gone.
    pub(crate) fn remove_redirect(
        &mut self,
        from: &Interface,
        mark: Mark,
        others: Others,
    ) -> Result<(), NetlinkError> {
        let filters = self.ingress_filters(from)?;
        // A table of our priority holds nothing but what is looked at itself.
        let only_ours = filters
            .iter()
            .all(|filter| filter.is_own(mark) || (filter.priority == PRIORITY && !filter.is_node()));
        let made = filters.iter().any(|filter| filter.is_own(mark) && filter.qdisc == Qdisc::Made);
        let goes = made && only_ours && others == Others::Absent;
        if goes && self.ingress_qdisc(from)? == Some(IngressQdisc::Ingress) {
            // At once: without its filter, it would be nobody's.
            return self.delete_ingress_qdisc(from);
        }
        self.delete_redirect(from, mark)
    }

    /// Removes the filters at an interface's ingress that carry the mark; success if they or the interface are
    /// gone.
    ///
    /// A filter alone would leave its table of one bucket behind where others have `u32` filters, too
    /// (`u32_delete`, net/sched/cls_u32.c). So the whole priority is deleted, unless somebody else has put
    /// filters there.
    fn delete_redirect(&mut self, from: &Interface, mark: Mark) -> Result<(), NetlinkError> {
        let mut filters = self.ingress_filters(from)?;
        filters.retain(|filter| filter.priority == PRIORITY && filter.is_node());
        let (own, foreign): (Vec<Filter>, Vec<Filter>) =
            filters.into_iter().partition(|filter| filter.mark == Some(mark));
        let handles = match (own.is_empty(), foreign.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => vec![0],
            (false, false) => own.iter().map(|filter| filter.handle).collect(),
        };
        for handle in handles {
            let request = tcmsg(from.index, handle, INGRESS_SIDE, filter_info()).text(Tca::Kind, "u32");
            let attempt = format_args!("stop redirecting the traffic of {from}");
            let result = self.change(attempt, Rtm::Deltfilter, NlmF::empty(), request);
            gone(result, &[Errno::NOENT, Errno::NODEV, Errno::INVAL])?;
        }
        Ok(())
    }
}

impl Filter {
    fn is_own(&self, mark: Mark) -> bool {
        self.priority == PRIORITY && self.mark == Some(mark)
    }

    /// Whether this decides about frames; the others are `u32`'s own tables, which hold these.
    fn is_node(&self) -> bool {
        self.handle & 0xfff != 0 // TC_U32_NODE, linux/pkt_cls.h
    }
}

/// Whether other guests are attached, or being attached, in the namespace. There is a moment in which they rely on a qdisc
/// and have no filter there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    Present,
    Absent,
}

fn new_qdisc(of: &Interface) -> Change {
    let request = tcmsg(of.index, TC_H_INGRESS_HANDLE, TC_H_INGRESS, 0).text(Tca::Kind, "ingress");
    let attempt = format!("add an ingress qdisc to {of}");
    (attempt, Rtm::Newqdisc.into(), NlmF::CREATE | NlmF::EXCL, request)
}

fn redirect(handle: u32, from: &Interface, to: &Interface, mark: Mark, qdisc: Qdisc) -> Payload {
    tcmsg(from.index, handle, INGRESS_SIDE, filter_info())
        .text(Tca::Kind, "u32")
        .nest(Tca::Options, |p| redirect_options(p, to.index, mark, qdisc))
}

fn new_redirect(from: &Interface, to: &Interface, mark: Mark, qdisc: Qdisc) -> Change {
    let request = redirect(NODE, from, to, mark, qdisc);
    let attempt = format!("redirect the traffic of {from} to {to}");
    (attempt, Rtm::Newtfilter.into(), NlmF::CREATE | NlmF::EXCL, request)
}

/// A class, a selector that matches everything, and one action.
fn redirect_options(payload: Payload, to: IfIndex, mark: Mark, qdisc: Qdisc) -> Payload {
    // `struct tc_u32_sel`: flags, shift, number of keys, then masks and offsets that only keys would use.
    let mut selector = [0; 16];
    selector[0] = TC_U32_TERMINAL;
    // `struct tc_mirred`: index, capabilities, action, reference and bind counts, what to do, interface.
    let mirred = [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to.0].map(u32::to_ne_bytes).concat();
    payload.u32(TCA_U32_CLASSID, class(qdisc)).attr(TCA_U32_SEL, &selector).nest(TCA_U32_ACT, |actions| {
        actions.nest(FIRST_ACTION, |action| {
            action
                .text(TCA_ACT_KIND, "mirred")
                .attr(TCA_ACT_COOKIE, &mark.bytes())
                .nest(TCA_ACT_OPTIONS, |options| options.attr(TCA_MIRRED_PARMS, &mirred))
        })
    })
}

/// Reads `struct tcmsg` and, of a `u32` filter, whose it is and where it sends things.
pub(super) fn read_filter(message: &[u8]) -> Option<Filter> {
    let handle = u32_at(message.get(8..)?)?;
    let [a, b, _, _] = u32_at(message.get(16..)?)?.to_be_bytes();
    let attributes = message.get(20..)?;
    let action = redirecting_action(attributes);
    let cookie = action.and_then(|action| attribute(action, TCA_ACT_COOKIE)).and_then(|c| c.first_chunk());
    let parameters = action
        .and_then(|action| attribute(action, TCA_ACT_OPTIONS))
        .and_then(|options| attribute(options, TCA_MIRRED_PARMS));
    Some(Filter {
        handle,
        priority: u16::from_be_bytes([a, b]),
        mark: cookie.map(|bytes: &[u8; 16]| Mark::from(*bytes)),
        qdisc: if u32_class(attributes) == Some(class(Qdisc::Made)) { Qdisc::Made } else { Qdisc::Found },
        target: parameters.and_then(|bytes| u32_at(bytes.get(24..)?)).map(IfIndex),
    })
}

/// The options of a `u32` filter.
fn u32_options(of_filter: &[u8]) -> Option<&[u8]> {
    attribute(of_filter, Tca::Kind).filter(|kind| until_zero(kind) == b"u32")?;
    attribute(of_filter, Tca::Options)
}

fn u32_class(of_filter: &[u8]) -> Option<u32> {
    attribute(u32_options(of_filter)?, TCA_U32_CLASSID).and_then(u32_at)
}

/// The first action of a `u32` filter, if it is `mirred`.
fn redirecting_action(of_filter: &[u8]) -> Option<&[u8]> {
    let actions = attribute(u32_options(of_filter)?, TCA_U32_ACT)?;
    let action = attribute(actions, FIRST_ACTION)?;
    attribute(action, TCA_ACT_KIND).filter(|kind| until_zero(kind) == b"mirred").map(|_| action)
}
