//! Identities: instances, executions, partitions and log positions.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use foldhash::fast::FixedState;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use uuid::Uuid;

/// The longest instance id, in bytes.
pub const MAX_INSTANCE_ID_BYTES: usize = 512;

/// A user-visible id of an orchestration instance. At most [`MAX_INSTANCE_ID_BYTES`] bytes, not empty.
///
/// ```
/// use steadfast_core::InstanceId;
/// let id = InstanceId::parse("order-17").unwrap();
/// assert_eq!(id.as_str(), "order-17");
/// assert!(InstanceId::parse("").is_err());
/// ```
#[derive(Clone)]
pub struct InstanceId {
    text: SmolStr,
    /// A turn looks its instance up in a dozen places; hashing the text once, when the id is made, pays for that.
    hash: u64,
}

/// An instance id that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("instance id {id:?} is not usable: {reason}")]
pub struct InvalidInstanceId {
    /// The rejected text, shortened to 64 characters.
    pub id: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl InstanceId {
    /// Checks a text and makes it an instance id.
    ///
    /// # Errors
    /// When the text is empty, longer than [`MAX_INSTANCE_ID_BYTES`], holds a control character, or begins with
    /// `@`, which is reserved for entities.
    pub fn parse(text: impl AsRef<str>) -> Result<Self, InvalidInstanceId> {
        let text = text.as_ref();
        let reason = if text.is_empty() {
            "it is empty; omit it to have one generated"
        } else if text.len() > MAX_INSTANCE_ID_BYTES {
            "it is longer than 512 bytes"
        } else if text.starts_with('@') {
            "ids that begin with '@' belong to entities"
        } else if text.chars().any(char::is_control) {
            "it holds a control character"
        } else {
            return Ok(Self::from_trusted(text));
        };
        Err(InvalidInstanceId { id: text.chars().take(64).collect(), reason })
    }

    /// An id that the runtime itself made, and so needs no check.
    pub fn from_trusted(text: impl Into<SmolStr>) -> Self {
        let text = text.into();
        let hash = FixedState::default().hash_one(text.as_bytes());
        Self { text, hash }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is the id of an entity: `@name@key`.
    pub fn is_entity(&self) -> bool {
        self.text.starts_with('@')
    }

    /// The partition that owns this id in a hub with `count` partitions.
    pub fn partition(&self, count: u16) -> PartitionId {
        PartitionId((fnv1a(self.text.as_bytes()) % u32::from(count.max(1))) as u16)
    }
}

impl PartialEq for InstanceId {
    fn eq(&self, other: &Self) -> bool {
        // Nearly always it is the same text in memory.
        self.hash == other.hash && (std::ptr::eq(self.as_str(), other.as_str()) || self.text == other.text)
    }
}

impl Eq for InstanceId {}

impl Hash for InstanceId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A table by instance.
pub type InstanceMap<V> = HashMap<InstanceId, V, BuildHasherDefault<KnownHash>>;

/// Takes the hash that an [`InstanceId`] carries as it is. For nothing else.
#[derive(Debug, Clone, Copy, Default)]
pub struct KnownHash(u64);

impl Hasher for KnownHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("an instance id is hashed as one number");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl PartialOrd for InstanceId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By the text, which is the order in which instances are listed and stored.
impl Ord for InstanceId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Serialize for InstanceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for InstanceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SmolStr::deserialize(deserializer).map(Self::from_trusted)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// 32-bit FNV-1a (offset basis 2166136261, prime 16777619), the hash that places an instance in a partition.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619))
}

/// One generation of an instance: continue-as-new and re-creation begin a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExecutionId(#[serde(with = "uuid::serde::compact")] Uuid);

impl ExecutionId {
    /// Wraps a UUID that the shell made.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id of an execution that this one causes, for example its `ordinal`-th action's child or its successor.
    /// Equal arguments give equal ids, so that replay and recovery agree with the first run.
    pub fn derive(self, purpose: &str, ordinal: i32) -> Self {
        let mut name = Vec::with_capacity(purpose.len() + 4);
        name.extend_from_slice(purpose.as_bytes());
        name.extend_from_slice(&ordinal.to_be_bytes());
        Self(Uuid::new_v5(&self.0, &name))
    }

    /// The UUID itself.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_simple(), f)
    }
}

impl fmt::Debug for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A control-queue partition, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartitionId(pub u16);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// The place of a record in its partition's commit log; the first record is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Position(pub u64);

impl Position {
    /// Before the first record.
    pub const ZERO: Self = Self(0);

    /// The position after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_matches_the_published_vectors() {
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"a"), 0xe40c_292c);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn unusable_instance_ids_are_refused_with_a_reason() {
        for (text, word) in [("", "empty"), ("@counter@a", "entities"), ("a\nb", "control")] {
            assert!(InstanceId::parse(text).unwrap_err().to_string().contains(word), "{text:?}");
        }
        assert!(InstanceId::parse("x".repeat(513)).unwrap_err().to_string().contains("512"));
    }

    #[test]
    fn derived_executions_differ_by_purpose_and_ordinal() {
        let id = ExecutionId::new(Uuid::from_u128(7));
        assert_eq!(id.derive("child", 1), id.derive("child", 1));
        assert_ne!(id.derive("child", 1), id.derive("child", 2));
        assert_ne!(id.derive("child", 1), id.derive("next", 1));
    }
}
