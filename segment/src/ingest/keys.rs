//! Attribute keys as small numbers, found by position before they are hashed.

use ahash::RandomState;
use hashbrown::HashTable;

/// Number of an attribute key among those of one scope.
pub(crate) type KeyId = u32;

/// More distinct keys than this get no number; their values go to the overflow column.
const KEY_LIMIT: usize = 4_096;

/// The keys of one attribute scope, in the order of their first appearance.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    names: Vec<Box<str>>,
    by_name: HashTable<KeyId>,
    state: RandomState,
    /// Which key stood at each position last time: records of one program carry the same keys in the same order.
    expected: Vec<KeyId>,
    /// Whether a key was refused a number.
    pub overflowed: bool,
}

impl Keys {
    /// The number of `key`, which stands at `position` in its list.
    #[inline]
    pub(crate) fn number(&mut self, position: usize, key: &str) -> Option<KeyId> {
        if let Some(expected) = self.expected.get(position)
            && &*self.names[*expected as usize] == key
        {
            return Some(*expected);
        }
        self.number_by_hash(position, key)
    }

    #[inline(never)]
    fn number_by_hash(&mut self, position: usize, key: &str) -> Option<KeyId> {
        let hash = self.state.hash_one(key);
        let found = self.by_name.find(hash, |id| &*self.names[*id as usize] == key).copied();
        let id = match found {
            Some(id) => id,
            None if self.names.len() >= KEY_LIMIT => {
                self.overflowed = true;
                return None;
            }
            None => {
                let id = self.names.len() as KeyId;
                self.names.push(key.into());
                let (names, state) = (&self.names, &self.state);
                self.by_name.insert_unique(hash, id, |id| state.hash_one(&*names[*id as usize]));
                id
            }
        };
        if position < self.expected.len() {
            self.expected[position] = id;
        } else if position == self.expected.len() {
            self.expected.push(id);
        }
        Some(id)
    }

    /// The key with number `id`.
    pub(crate) fn name(&self, id: KeyId) -> &str {
        &self.names[id as usize]
    }

    /// How many keys have numbers.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_number_at_any_position() {
        let mut keys = Keys::default();
        assert_eq!(keys.number(0, "a"), Some(0));
        assert_eq!(keys.number(1, "b"), Some(1));
        assert_eq!(keys.number(0, "b"), Some(1));
        assert_eq!(keys.number(0, "a"), Some(0));
        assert_eq!(keys.name(1), "b");
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let mut keys = Keys::default();
        for number in 0..KEY_LIMIT + 10 {
            keys.number(0, &format!("k{number}"));
        }
        assert_eq!(keys.len(), KEY_LIMIT);
        assert!(keys.overflowed);
    }
}
