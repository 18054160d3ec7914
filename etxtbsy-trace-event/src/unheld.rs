//! A description that no process holds: what in the kernel keeps it open.

use crate::{Opened, later_word::Word};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An open file description with write access that no process holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unheld {
    /// What keeps it.
    pub place: Place,
    /// The name of the loop device or binfmt_misc entry, or the type of the file system.
    pub device: Option<String>,
    /// The mount point of the file system, as the victim sees it.
    #[serde(default)]
    pub mount: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_b64: Option<String>,
    /// Who opened the file for writing.
    pub opened: Option<Opened>,
}

/// What keeps an open file description that no process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The queue of a unix socket: the fd was sent (SCM_RIGHTS) and not received yet.
    SocketQueue,
    /// An io_uring, as a registered file or for an unfinished request.
    IoUring,
    /// A loop device, which the file backs.
    LoopDevice,
    /// Swapping: the file is an active swap file.
    SwapFile,
    /// A binfmt_misc entry, which keeps its interpreter open (flag `F`).
    BinfmtMisc,
    /// The file system itself, which refused the call.
    FileSystem,
    /// Something else in the kernel.
    Unknown,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}
