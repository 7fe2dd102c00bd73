//! Handles: what C holds of objects that live here.
//!
//! A handle is no address. It says which place of a table an object has, and which of the objects that had that place it is,
//! so one that was freed, belongs to another kind of object, or never was a handle is told apart from a good one without
//! touching memory that it might point to.
//!
//! ```text
//! 63..60 kind | 59..24 how many objects had the place before | 23..0 place + 1
//! ```

use std::ffi::c_void;
use std::sync::{Arc, PoisonError, RwLock};

const PLACE_BITS: u32 = 24;
const KIND_SHIFT: u32 = 60;

/// The objects of one kind.
pub(crate) struct Table<T> {
    kind: u64,
    places: RwLock<Places<T>>,
}

struct Places<T> {
    all: Vec<Place<T>>,
    free: Vec<usize>,
}

struct Place<T> {
    before: u64,
    object: Option<Arc<T>>,
}

impl<T> Place<T> {
    /// Another object is gone. Counts on to zero again after as many objects as no program makes.
    fn count(&mut self) {
        self.before = (self.before + 1) & ((1 << (KIND_SHIFT - PLACE_BITS)) - 1);
    }
}

impl<T> Table<T> {
    /// A table of objects whose handles are of this kind, 1 to 15, which no other table has.
    pub const fn new(kind: u64) -> Table<T> {
        Table { kind, places: RwLock::new(Places { all: Vec::new(), free: Vec::new() }) }
    }

    /// A handle of a new object. `None`: there are more than any program needs.
    pub fn insert(&self, object: T) -> Option<*mut c_void> {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let place = match places.free.pop() {
            Some(place) => place,
            None if places.all.len() + 1 < 1 << PLACE_BITS => {
                places.all.push(Place { before: 0, object: None });
                places.all.len() - 1
            }
            None => return None,
        };
        let at = &mut places.all[place];
        at.object = Some(Arc::new(object));
        let handle = self.kind << KIND_SHIFT | at.before << PLACE_BITS | (place as u64 + 1);
        Some(std::ptr::without_provenance_mut(handle as usize))
    }

    /// The object of a handle.
    #[inline]
    pub fn get(&self, handle: *mut c_void) -> Option<Arc<T>> {
        let (place, before) = self.parts(handle)?;
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.all.get(place).filter(|at| at.before == before)?.object.clone()
    }

    /// Takes the object of a handle out; from now on the handle is nobody's.
    pub fn remove(&self, handle: *mut c_void) -> Option<Arc<T>> {
        let (place, before) = self.parts(handle)?;
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let at = places.all.get_mut(place).filter(|at| at.before == before)?;
        let object = at.object.take()?;
        at.count();
        places.free.push(place);
        Some(object)
    }

    /// Takes out all objects of which this is true.
    pub fn remove_all(&self, of: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let mut removed = Vec::new();
        let Places { all, free } = &mut *self.places.write().unwrap_or_else(PoisonError::into_inner);
        for (place, at) in all.iter_mut().enumerate() {
            if let Some(object) = at.object.take_if(|object| of(object)) {
                at.count();
                free.push(place);
                removed.push(object);
            }
        }
        removed
    }

    #[inline]
    fn parts(&self, handle: *mut c_void) -> Option<(usize, u64)> {
        let word = handle.addr() as u64;
        let place = (word & ((1 << PLACE_BITS) - 1)).checked_sub(1)?;
        let before = (word >> PLACE_BITS) & ((1 << (KIND_SHIFT - PLACE_BITS)) - 1);
        (word >> KIND_SHIFT == self.kind).then_some((place as usize, before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_good_until_its_object_goes() {
        let (table, other) = (Table::new(1), Table::<u32>::new(2));
        let (one, two) = (table.insert(1_u32).unwrap(), table.insert(2).unwrap());
        assert_eq!((table.get(one).as_deref(), table.get(two).as_deref()), (Some(&1), Some(&2)));
        assert!(other.get(one).is_none(), "another kind");
        assert_eq!(table.remove(one).as_deref(), Some(&1));
        assert!(table.get(one).is_none() && table.remove(one).is_none(), "freed");
        let three = table.insert(3).unwrap();
        assert!(three != one && table.get(one).is_none(), "the place has another object now");
        assert_eq!(table.get(three).as_deref(), Some(&3));
        assert_eq!(table.remove_all(|&object| object == 3), [Arc::new(3)]);
        assert!(table.get(three).is_none() && table.get(two).is_some());
        let four = table.insert(4).unwrap();
        assert!(four != three && four != one);
    }

    #[test]
    fn what_never_was_a_handle_is_none() {
        let table = Table::new(1);
        table.insert(()).unwrap();
        let on_the_stack = 7_u64;
        let foreign =
            [0, 1, usize::MAX, 1 << KIND_SHIFT, (&raw const on_the_stack).addr(), 1 << KIND_SHIFT | 2];
        for word in foreign {
            assert!(table.get(std::ptr::without_provenance_mut(word)).is_none(), "{word:x}");
        }
    }
}
