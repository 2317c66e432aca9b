//! Values that many segments share, kept once and counted.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// A counted pool: equal values have one number while anybody holds it.
#[derive(Debug)]
pub(super) struct Pool<T> {
    numbers: HashMap<Arc<T>, u32>,
    slots: Vec<Option<(Arc<T>, u32)>>,
    free: Vec<u32>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), slots: Vec::new(), free: Vec::new() }
    }
}

impl<T: Eq + Hash + Clone> Pool<T> {
    /// The number of `value`, held once more.
    pub(super) fn hold(&mut self, value: &T) -> u32 {
        if let Some(&number) = self.numbers.get(value) {
            let (_, holders) = self.slots[number as usize].as_mut().expect("a numbered value has a slot");
            *holders += 1;
            return number;
        }
        let shared = Arc::new(value.clone());
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1)
                    .expect("fewer shared values than segments, fewer segments than 2^32")
            }
        };
        self.slots[number as usize] = Some((Arc::clone(&shared), 1));
        self.numbers.insert(shared, number);
        number
    }

    /// The value that a held number stands for.
    pub(super) fn get(&self, number: u32) -> &T {
        let (value, _) = self.slots[number as usize].as_ref().expect("the number is held");
        value
    }

    /// Gives up one hold.
    pub(super) fn release(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        let (value, holders) = slot.as_mut().expect("the number is held");
        *holders -= 1;
        if *holders == 0 {
            self.numbers.remove(value.as_ref());
            *slot = None;
            self.free.push(number);
        }
    }
}
