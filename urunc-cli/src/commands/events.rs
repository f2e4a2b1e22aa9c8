//! What `events` prints: one JSON object a line, in runc's shape.

use std::io::{self, Write};
use std::ops::ControlFlow;

use serde::Serialize;
use urunc_state::ContainerId;

use super::CommandError;
use crate::args::EventsArgs;
use crate::cgroup::Stats;
use crate::lifecycle::{Happening, Runtime};

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a ContainerId,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Stats>,
}

pub(super) fn print(runtime: &Runtime, args: EventsArgs) -> Result<(), CommandError> {
    let id = ContainerId::new(args.id)?;
    if args.stats {
        return Ok(line("stats", &id, Some(&runtime.stats(&id)?))?);
    }
    let mut printed = Ok(());
    runtime.watch(&id, args.interval, |happening| {
        printed = match &happening {
            Happening::Stats(stats) => line("stats", &id, Some(stats)),
            Happening::OutOfMemory => line("oom", &id, None),
        };
        if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(printed?)
}

fn line(kind: &str, id: &ContainerId, data: Option<&Stats>) -> io::Result<()> {
    let mut text = serde_json::to_vec(&Line { kind, id, data })?;
    text.push(b'\n');
    // In one piece, for whoever reads a pipe by lines.
    io::stdout().lock().write_all(&text)
}
