//! Block devices in the container's record: what the kernel does not give back by itself.

use serde::{Deserialize, Serialize};
use urunc_rootfs::block::{GiveBackError, Handover};
use urunc_state::{Json, Record, Resource};

use super::plan::{Take, Whose};

/// The kind of these resources.
pub(in crate::lifecycle) const KIND: &str = "urunc-rootfs/block";
const SCHEMA: u32 = 1;

/// Why a block device could not be given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(in crate::lifecycle) enum ReleaseError {
    /// The record's data cannot be understood.
    #[error("cannot understand the record of a block device: {0}")]
    Data(serde_json::Error),
    /// It cannot be mounted.
    #[error("{}", crate::report::chain(.0))]
    GiveBack(GiveBackError),
}

#[derive(Serialize, Deserialize)]
struct Data {
    whose: Whose,
    handover: Handover,
}

/// The resources for `takes`, to be recorded before any of them is carried out.
pub(super) fn resources<'a>(
    takes: impl IntoIterator<Item = &'a Take>,
) -> Result<Vec<Resource>, serde_json::Error> {
    let resource = |take: &Take| {
        let data = Data { whose: take.whose, handover: take.handover.clone() };
        Ok(Resource { kind: KIND.to_owned(), schema: SCHEMA, data: Json::of(&data)? })
    };
    takes.into_iter().map(resource).collect()
}

/// Once the container is created, its own root file system is nobody's business any more: whoever mounted it unmounts it.
pub(in crate::lifecycle) fn settle(record: &mut Record) {
    let own = |resource: &Resource| {
        resource.kind == KIND && resource.data.read::<Data>().is_ok_and(|data| data.whose == Whose::Container)
    };
    record.urunc.resources.retain(|resource| !own(resource));
}

/// Gives a block device back. The guest must be gone.
pub(in crate::lifecycle) fn release(resource: &Resource) -> Result<(), ReleaseError> {
    let Data { whose, handover } = resource.data.read().map_err(ReleaseError::Data)?;
    match whose {
        Whose::Host => handover.give_back().map(drop).map_err(ReleaseError::GiveBack),
        Whose::Container => {
            // A create that failed puts it back. After one that was killed a loop device may be gone: then only its owner
            // can mount it again, and it is his in any case.
            if let Err(error) = handover.restore() {
                log::warn!("{}", crate::report::chain(&error));
            }
            Ok(())
        }
    }
}
