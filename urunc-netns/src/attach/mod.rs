//! Making what an [`Attachment`] says, and taking it away again. The same list of parts is walked forwards to
//! attach and backwards to detach, so the two cannot drift apart.
//!
//! ```text
//!   dynamic:  TAP ─▶ offer by name ─▶ redirect on the interface, with its ingress hook
//!   static:   TAP ─▶ nftables table ─▶ forwarding ─▶ offer by name
//! ```
//! The redirect on the container's interface is made last and removed first: without a TAP device behind it, it
//! swallows whatever arrives.

mod error;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;

pub use self::error::{AttachError, DetachError, PartError, ReleaseError};
use crate::attachment::{Attachment, Connection, Handover, Qdisc, STATIC_HOST, STATIC_PREFIX};
use crate::names::Interface;
use crate::namespace::{NetNs, NsError};
use crate::netlink::link::Link;
use crate::netlink::tc::Others;
use crate::netlink::{NetlinkError, Socket, nft};
use crate::owner::{Mark, Owner, read_alias};
use crate::run::Here;
use crate::sysctl::{self, Switch, SwitchState};
use crate::tap;

/// An attached TAP device, as the monitor is to get it.
#[derive(Debug)]
pub enum Tap {
    /// Open, close-on-exec. The device goes when the last copy of this descriptor is closed.
    Descriptor(OwnedFd),
    /// Ready to be attached by its name. [`settle`](crate::settle) when the monitor runs.
    Named,
}

/// One thing that an attachment consists of.
#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    /// The TAP device and all that goes with it: its link, its address in static mode, its own redirect in
    /// dynamic mode.
    Tap,
    /// The filter at the container interface's ingress, and the hook that it hangs in.
    Redirect(Qdisc),
    /// The nftables table.
    Table(&'a str),
    /// Forwarding on the container's interface, and what it was before.
    Forwarding(SwitchState),
    /// The device is made persistent for this user and let go of.
    Offer(u32),
}

/// What an attachment consists of, in the order of making.
fn parts(of: &Attachment) -> Vec<Part<'_>> {
    let mut parts = vec![Part::Tap];
    if let Connection::Masquerade { table, forwarding } = &of.connection {
        parts.extend([Part::Table(table), Part::Forwarding(*forwarding)]);
    }
    if let Handover::Name { uid } = of.handover {
        parts.push(Part::Offer(uid));
    }
    if let Connection::Redirect { qdisc } = of.connection {
        parts.push(Part::Redirect(qdisc));
    }
    parts
}

/// Makes everything that the plan says, or nothing.
///
/// Call it after the plan has been recorded. The device is new (an existing one of that name is an error, not
/// reused: N8), up, has the container interface's MTU, and no IPv6 address of its own (N21).
///
/// # Errors
/// [`AttachError`] names the step. After any error but [`AttachError::NotUndone`] the namespace is as before.
pub fn attach(here: &Here, plan: &Attachment) -> Result<Tap, AttachError> {
    let socket = Socket::route(here)?;
    if here.id() != plan.namespace || is_another(&socket, plan) {
        return Err(AttachError::Elsewhere { planned: plan.namespace, here: here.id() });
    }
    let mut bench = Bench { here, plan, socket, tap: None };
    let mut made = Vec::new();
    for part in parts(plan) {
        if let Err(source) = bench.make(part) {
            #[cfg(test)]
            if crate::faults::crashed() {
                return Err(source);
            }
            if source.is_uncertain() {
                made.push(part);
            }
            // Only what this call made: an object of the same mark may be a running container's.
            return Err(match bench.remove_all(&made) {
                Ok(()) => source,
                Err(undo) => AttachError::NotUndone { source: Box::new(source), undo },
            });
        }
        made.push(part);
    }
    log::debug!("attached {} to {} for container {}", plan.tap, plan.uplink, plan.owner.container());
    Ok(bench.tap.map_or(Tap::Named, Tap::Descriptor))
}

/// Removes what the record lists, and succeeds when all of it is gone, in whatever state it was found.
///
/// Objects of others stay: a filter is ours by its mark, a TAP device by its alias, a table by its name; an
/// ingress qdisc goes with a filter that says that it was made with it, if nobody else has filters there (N10, N11).
///
/// # Errors
/// [`DetachError::Parts`] lists what could not be removed; the rest is removed, and a second call tries again.
pub fn detach(here: &Here, record: &Attachment) -> Result<(), DetachError> {
    detach_here(here, record).map(drop)
}

fn detach_here(here: &Here, record: &Attachment) -> Result<Released, DetachError> {
    if here.id() != record.namespace {
        return Err(DetachError::Elsewhere { recorded: record.namespace, here: here.id() });
    }
    let socket = Socket::route(here).map_err(one)?;
    if is_another(&socket, record) {
        log::debug!("{} is another namespace by now; the one that {} was in is gone", here.id(), record.tap);
        return Ok(Released::NamespaceGone);
    }
    Bench { here, plan: record, socket, tap: None }.remove_all(&parts(record))?;
    log::debug!("detached {} from {}", record.tap, record.uplink);
    Ok(Released::Detached)
}

/// Whether the namespace has been given an identity that was the recorded one's before.
fn is_another(here: &Socket, record: &Attachment) -> bool {
    record.cookie.is_some_and(|recorded| here.cookie().is_some_and(|found| found != recorded))
}

/// Removes everything that carries an owner's mark, for when its record is lost.
///
/// What cannot be marked stays: the switch for forwarding.
///
/// # Errors
/// As [`detach`].
pub fn detach_unrecorded(here: &Here, owner: &Owner) -> Result<(), DetachError> {
    let mut socket = Socket::route(here).map_err(one)?;
    let links = socket.links().map_err(one)?;
    let (own, others): (Vec<&Link>, Vec<&Link>) =
        links.iter().partition(|link| owner_of(link) == Some(owner.mark()));
    let neighbours = others_among(&links, owner);
    let mut results: Vec<Result<(), NetlinkError>> =
        others.iter().map(|link| socket.remove_redirect(&link.interface, owner.mark(), neighbours)).collect();
    results.extend(own.iter().map(|link| socket.delete_link(&link.interface)));
    results.push(nft::delete_table(here, &owner.table_name()));
    collect(results.into_iter().map(|result| result.map_err(PartError::from)))
}

/// What became of an attachment whose namespace was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// The namespace is there, and nothing of the attachment is left in it.
    Detached,
    /// The namespace is gone, and all that was in it.
    NamespaceGone,
}

/// Finds the record's namespace and detaches there: at `path`, if one is known; and where that has gone, or leads to
/// another namespace, wherever the recorded one is, for somebody may have it pinned (see [`NetNs::find`]).
///
/// A namespace that is nowhere is [`Released::NamespaceGone`]. Nothing but the recorded one is ever touched, so there is
/// no guess in this (N3).
///
/// # Errors
/// [`ReleaseError`] says whether opening, searching, entering or detaching failed.
pub fn release(path: Option<&Path>, record: &Attachment) -> Result<Released, ReleaseError> {
    let at_path = path.map(NetNs::open);
    let unopened = match at_path {
        Some(Ok(namespace)) if namespace.id() == record.namespace => return release_in(&namespace, record),
        None | Some(Ok(_) | Err(NsError::Missing { .. } | NsError::NotNetwork { .. })) => None,
        Some(Err(error)) => Some(error),
    };
    match (NetNs::find(record.namespace)?, unopened) {
        (Some(namespace), _) => release_in(&namespace, record),
        (None, None) => Ok(Released::NamespaceGone),
        // It may be the one that nobody else has.
        (None, Some(error)) => Err(error.into()),
    }
}

/// As [`release`], in a namespace that the caller has open.
///
/// # Errors
/// [`ReleaseError::Detach`] if this is not the recorded namespace, or something is left; [`ReleaseError::Run`] if it
/// cannot be entered.
pub fn release_in(namespace: &NetNs, record: &Attachment) -> Result<Released, ReleaseError> {
    // Whatever namespace the record names, the objects in it are ours; not even the host's should keep them.
    Ok(namespace.run_anywhere(|here| detach_here(here, record))??)
}

/// One walk along the parts, forwards or backwards.
struct Bench<'a> {
    here: &'a Here,
    plan: &'a Attachment,
    socket: Socket,
    /// The device's descriptor, from when it is made until it is let go of.
    tap: Option<OwnedFd>,
}

impl Bench<'_> {
    fn make(&mut self, part: Part<'_>) -> Result<(), AttachError> {
        let plan = self.plan;
        let uplink = &plan.uplink;
        match part {
            Part::Tap => self.tap = Some(self.make_tap()?),
            Part::Redirect(qdisc) => self.make_redirect(qdisc)?,
            Part::Table(table) => nft::masquerade(self.here, table, STATIC_HOST, uplink)?,
            Part::Forwarding(_) => {
                sysctl::set(self.here, Switch::Ipv4Forwarding, &uplink.name, SwitchState::On)?
            }
            Part::Offer(uid) => {
                let failed = |source| AttachError::Offer { name: plan.tap.clone(), uid, source };
                self.tap.take().map_or(Ok(()), |tap| tap::offer_by_name(tap, uid)).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Until this returns, the descriptor is the only thing that keeps the device; any failure drops both.
    fn make_tap(&mut self) -> Result<OwnedFd, AttachError> {
        let plan = self.plan;
        let fd = tap::make(self.here, &plan.tap).map_err(|source| match source.kind() {
            io::ErrorKind::ResourceBusy => AttachError::TapTaken { name: plan.tap.clone() },
            _ => AttachError::CreateTap { name: plan.tap.clone(), source },
        })?;
        let link = self.tap_link()?;
        self.socket.prepare_link(&link, &plan.owner.alias(), plan.mtu)?;
        match sysctl::set(self.here, Switch::Ipv6Disabled, &link.name, SwitchState::On) {
            Err(error) if !error.is_absent() => return Err(error.into()),
            _ => (), // a kernel without IPv6 has no such switch, and no need of it
        }
        match plan.connection {
            Connection::Redirect { .. } => {
                self.socket.add_ingress_qdisc(&link)?;
                self.socket.add_redirect(&link, &plan.uplink, plan.owner.mark(), Qdisc::Made)?;
            }
            Connection::Masquerade { .. } => {
                self.socket.add_address(&link, STATIC_HOST, STATIC_PREFIX)?;
                sysctl::set(self.here, Switch::Ipv4Forwarding, &link.name, SwitchState::On)?;
            }
        }
        self.socket.raise_link(&link)?;
        Ok(fd)
    }

    /// If this fails for certain, nothing of it is left.
    fn make_redirect(&mut self, qdisc: Qdisc) -> Result<(), AttachError> {
        let (tap, uplink, mark) = (self.tap_link()?, &self.plan.uplink, self.plan.owner.mark());
        if qdisc == Qdisc::Found {
            return Ok(self.socket.add_redirect(uplink, &tap, mark, qdisc)?);
        }
        match self.socket.add_qdisc_and_redirect(uplink, &tap, mark)? {
            [Ok(()), Ok(())] => Ok(()),
            // Somebody else has made one since it was planned. It serves as well, and is not ours to remove.
            [Err(_), Ok(())] => match self.socket.disown_qdisc(uplink, &tap, mark) {
                Ok(()) => Ok(()),
                Err(error) => {
                    self.socket.remove_redirect(uplink, mark, Others::Present)?;
                    Err(error.into())
                }
            },
            [Ok(()), Err(error)] => {
                let others = self.others()?;
                if others == Others::Absent && self.socket.ingress_filters(uplink)?.is_empty() {
                    self.socket.delete_ingress_qdisc(uplink)?;
                }
                Err(error.into())
            }
            // Another guest's redirect is what is in the way, if the qdisc is only there already.
            [Err(qdisc), Err(filter)] => Err(if qdisc.is(&[Errno::EXIST]) { filter } else { qdisc }.into()),
        }
    }

    /// Whether other guests have TAP devices here.
    fn others(&mut self) -> Result<Others, NetlinkError> {
        Ok(others_among(&self.socket.links()?, &self.plan.owner))
    }

    fn tap_link(&mut self) -> Result<Interface, AttachError> {
        let name = &self.plan.tap;
        let link = self.socket.link(name)?.ok_or_else(|| AttachError::Vanished { name: name.clone() })?;
        Ok(link.interface)
    }

    /// Removes the parts in reverse, every one whatever became of the others.
    fn remove_all(&mut self, parts: &[Part<'_>]) -> Result<(), DetachError> {
        collect(parts.iter().rev().map(|part| self.remove(*part)))
    }

    fn remove(&mut self, part: Part<'_>) -> Result<(), PartError> {
        let Attachment { owner, tap, uplink, .. } = self.plan;
        match part {
            Part::Tap => match self.socket.link(tap)? {
                Some(link) if owner_of(&link) == Some(owner.mark()) => {
                    self.socket.delete_link(&link.interface)?
                }
                _ => (),
            },
            Part::Redirect(_) => {
                let others = self.others()?;
                self.socket.remove_redirect(uplink, owner.mark(), others)?;
            }
            Part::Table(table) => nft::delete_table(self.here, table)?,
            Part::Forwarding(SwitchState::On) => (),
            Part::Forwarding(SwitchState::Off) => {
                let links = self.socket.links()?;
                // Not while another guest needs it, which was attached before this one's remains were removed.
                let needed = others_among(&links, owner) == Others::Present;
                // The same interface, whatever its name is now; another one has a switch of its own.
                let same = links.iter().find(|link| link.interface.index == uplink.index);
                if let Some(link) = same.filter(|_| !needed) {
                    let name = &link.interface.name;
                    sysctl::set(self.here, Switch::Ipv4Forwarding, name, SwitchState::Off)?;
                }
            }
            Part::Offer(_) => (), // goes with the device
        }
        Ok(())
    }
}

/// Whether there are TAP devices of other owners.
fn others_among(links: &[Link], owner: &Owner) -> Others {
    let any = links.iter().any(|link| owner_of(link).is_some_and(|mark| mark != owner.mark()));
    if any { Others::Present } else { Others::Absent }
}

/// Whose TAP device a link is, if it is anybody's: by the mark in its alias, not by its name.
fn owner_of(link: &Link) -> Option<Mark> {
    read_alias(link.alias.as_deref()?).map(|(mark, _)| mark)
}

/// All that failed, if anything did. Every result is waited for first.
fn collect(results: impl Iterator<Item = Result<(), PartError>>) -> Result<(), DetachError> {
    let failures: Vec<PartError> = results.filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(DetachError::Parts { failures }) }
}

fn one(failure: NetlinkError) -> DetachError {
    DetachError::Parts { failures: vec![failure.into()] }
}
