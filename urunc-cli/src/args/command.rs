//! The table of commands. A command's options are only put together when it is the one that was given: all of them at once
//! are 60 pages of stack and heap that every command would touch (benches/README.md).

use clap::error::ErrorKind;
use clap::{ArgMatches, FromArgMatches, Subcommand};

use super::{
    CheckArgs, CreateArgs, DeleteArgs, EventsArgs, ExecArgs, FeaturesArgs, IdArgs, KillArgs, ListArgs,
    PsArgs, RunArgs, SpecArgs, UpdateArgs,
};

/// What clap's derived implementation would be, except that it is lazy.
macro_rules! commands {
    ($(#[doc = $about:literal] $name:literal => $variant:ident($arguments:ty),)*) => {
        /// The commands.
        #[derive(Debug)]
        pub enum Command {
            $(#[doc = $about] $variant($arguments),)*
        }

        impl Subcommand for Command {
            fn augment_subcommands(parent: clap::Command) -> clap::Command {
                parent$(.subcommand(lazy::<$arguments>($name, $about)))*
            }

            fn augment_subcommands_for_update(parent: clap::Command) -> clap::Command {
                Self::augment_subcommands(parent)
            }

            fn has_subcommand(name: &str) -> bool {
                [$($name),*].contains(&name)
            }
        }

        impl FromArgMatches for Command {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Self::from_arg_matches_mut(&mut matches.clone())
            }

            fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
                let (name, mut given) = matches
                    .remove_subcommand()
                    .ok_or_else(|| clap::Error::raw(ErrorKind::MissingSubcommand, "give a command"))?;
                match name.as_str() {
                    $($name => FromArgMatches::from_arg_matches_mut(&mut given).map(Self::$variant),)*
                    other => Err(clap::Error::raw(ErrorKind::InvalidSubcommand, format!("unknown command {other}"))),
                }
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}

commands! {
    /// Create a container: everything is set up and checked, the guest does not run yet
    "create" => Create(CreateArgs),
    /// Boot the guest of a created container
    "start" => Start(IdArgs),
    /// Print a container's state as OCI JSON
    "state" => State(IdArgs),
    /// Send a signal to a container's monitor (TERM asks the guest to shut down)
    "kill" => Kill(KillArgs),
    /// Remove a stopped or created container and everything that it holds
    "delete" => Delete(DeleteArgs),
    /// Freeze a running container: its guest stops where it is
    "pause" => Pause(IdArgs),
    /// Let a paused container run on
    "resume" => Resume(IdArgs),
    /// Print what a container uses, in intervals, and when its memory runs out, as JSON lines
    "events" => Events(EventsArgs),
    /// Change the limits of a container
    "update" => Update(Box<UpdateArgs>),
    /// Create a container, start it, wait for its end and remove it
    "run" => Run(RunArgs),
    /// List containers
    "list" => List(ListArgs),
    /// Show the host processes of a container
    "ps" => Ps(PsArgs),
    /// Run a second process in a container; works in those that are handed to another runtime
    "exec" => Exec(Box<ExecArgs>),
    /// Write a config.json to start from
    "spec" => Spec(SpecArgs),
    /// Say what is missing on this host, or in a bundle, and how to get it
    "check" => Check(CheckArgs),
    /// Print what this build can do as OCI features JSON
    "features" => Features(FeaturesArgs),
}

fn lazy<A: clap::Args>(name: &'static str, about: &'static str) -> clap::Command {
    clap::Command::new(name).about(about.trim_start()).defer(|command| {
        // The arguments have a description of their own, for readers of the code.
        let about = command.get_about().cloned().unwrap_or_default();
        A::augment_args(command).about(about).long_about(None)
    })
}
