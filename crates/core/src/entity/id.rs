//! The identity of an entity.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::format_smolstr;

use crate::ids::{InstanceId, InvalidInstanceId, MAX_INSTANCE_ID_BYTES};

/// Which entity: the name of its kind, in lower case, and a key that tells entities of one kind apart. Its messages
/// travel to the instance id `@name@key`, which ordinary orchestrations can't use.
///
/// Entities are ordered by name and then by key. Locks are taken in that order.
///
/// ```
/// use steadfast_core::entity::EntityId;
/// let id = EntityId::new("Counter", "a").unwrap();
/// assert_eq!((id.name(), id.key()), ("counter", "a"));
/// assert_eq!(id.to_string(), "@counter@a");
/// assert_eq!(EntityId::parse("@counter@a").unwrap(), id);
/// ```
#[derive(Clone)]
pub struct EntityId {
    instance: InstanceId,
    /// Length of the name; the key begins two bytes later.
    name_len: u16,
}

impl EntityId {
    /// An entity by the name of its kind, whose case doesn't matter, and its key, which may be empty.
    ///
    /// # Errors
    /// When the name is empty or holds `@`, either holds a control character, or `@name@key` is longer than
    /// [`MAX_INSTANCE_ID_BYTES`].
    pub fn new(name: impl AsRef<str>, key: impl AsRef<str>) -> Result<Self, InvalidInstanceId> {
        let (name, key) = (name.as_ref(), key.as_ref());
        if name.contains('@') {
            let id = format!("@{name}@{key}").chars().take(64).collect();
            return Err(InvalidInstanceId { id, reason: "the name of an entity holds no '@'" });
        }
        if name.bytes().any(|byte| !byte.is_ascii() || byte.is_ascii_uppercase()) {
            return Self::parse(format_smolstr!("@{}@{key}", name.to_lowercase()));
        }
        Self::parse(format_smolstr!("@{name}@{key}"))
    }

    /// Reads `@name@key`. The name ends at the second `@`; the key may hold further ones.
    ///
    /// # Errors
    /// When the text isn't of that form, or as for [`EntityId::new`].
    pub fn parse(text: impl AsRef<str>) -> Result<Self, InvalidInstanceId> {
        let text = text.as_ref();
        let name_len = text.strip_prefix('@').and_then(|rest| rest.find('@'));
        let reason = match name_len {
            None => "the id of an entity has the form '@name@key'",
            Some(0) => "the name of an entity is not empty",
            Some(_) if text.len() > MAX_INSTANCE_ID_BYTES => "it is longer than 512 bytes",
            Some(_) if text.chars().any(char::is_control) => "it holds a control character",
            Some(len) if text[1..=len].chars().any(char::is_uppercase) => {
                "the name of an entity is in lower case"
            }
            Some(len) => {
                let name_len = u16::try_from(len).unwrap_or(u16::MAX);
                return Ok(Self { instance: InstanceId::from_trusted(text), name_len });
            }
        };
        Err(InvalidInstanceId { id: text.chars().take(64).collect(), reason })
    }

    /// The entity whose messages go to `instance`, if it is one.
    pub fn of_instance(instance: &InstanceId) -> Option<Self> {
        let name_len = instance.as_str().strip_prefix('@')?.find('@').filter(|len| *len > 0)?;
        Some(Self { instance: instance.clone(), name_len: u16::try_from(name_len).ok()? })
    }

    /// The name of its kind, in lower case.
    pub fn name(&self) -> &str {
        &self.instance.as_str()[1..=usize::from(self.name_len)]
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.instance.as_str()[usize::from(self.name_len) + 2..]
    }

    /// Where its messages go: `@name@key`.
    pub fn instance_id(&self) -> &InstanceId {
        &self.instance
    }
}

impl PartialEq for EntityId {
    fn eq(&self, other: &Self) -> bool {
        self.instance == other.instance
    }
}

impl Eq for EntityId {}

impl Hash for EntityId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.instance.hash(state);
    }
}

impl PartialOrd for EntityId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for EntityId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name()).then_with(|| self.key().cmp(other.key()))
    }
}

impl Serialize for EntityId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.instance.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EntityId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let instance = InstanceId::deserialize(deserializer)?;
        Self::of_instance(&instance)
            .ok_or_else(|| serde::de::Error::custom(format_args!("'{instance}' is not the id of an entity")))
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.instance, f)
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.instance, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_at_sign_ends_the_name_and_the_key_may_be_anything() {
        for (text, name, key) in
            [("@a@b", "a", "b"), ("@a@", "a", ""), ("@a@b@c", "a", "b@c"), ("@ä@ö", "ä", "ö")]
        {
            let id = EntityId::parse(text).unwrap();
            assert_eq!((id.name(), id.key(), id.to_string().as_str()), (name, key, text));
            assert_eq!(EntityId::of_instance(id.instance_id()), Some(id));
        }
        assert_eq!(EntityId::new("COUNTER", "A").unwrap().to_string(), "@counter@A");
    }

    #[test]
    fn unusable_entity_ids_are_refused_with_a_reason() {
        for (text, word) in
            [("a", "form"), ("@a", "form"), ("@@a", "empty"), ("@A@a", "lower"), ("@a@\n", "control")]
        {
            assert!(EntityId::parse(text).unwrap_err().to_string().contains(word), "{text:?}");
        }
        assert!(EntityId::new("a@b", "c").unwrap_err().to_string().contains("'@'"));
        assert!(EntityId::new("a", "x".repeat(510)).unwrap_err().to_string().contains("512"));
    }

    #[test]
    fn entities_are_ordered_by_name_and_then_by_key() {
        let id = |name, key| EntityId::new(name, key).unwrap();
        let mut ids = vec![id("b", "1"), id("a!", "1"), id("a", "2"), id("a", "1")];
        ids.sort();
        assert_eq!(ids, [id("a", "1"), id("a", "2"), id("a!", "1"), id("b", "1")]);
    }
}
