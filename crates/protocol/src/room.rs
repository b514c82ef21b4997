//! The memory for what strangers send before anything of it is judged.
//!
//! Whoever comes may have some. When there is none left, the network that has the most gives way
//! to any that would have less: the longest of its requests that still wait for their bodies ends.
//! So one that sends without end stands in its own way only, and so do many; a fixed share of each
//! would be used up by many, and then there were none for anybody.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::future::AbortHandle;
use http::request::Parts;

use crate::rates;

/// What a request takes beside its head and its body: its task, its stream, their bookkeeping.
const EACH: usize = 8 * 1024;

/// All that there is, and who has it.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    by: HashMap<IpAddr, usize>,
    /// In the order in which they came.
    requests: BTreeMap<u64, Request>,
    next: u64,
}

#[derive(Debug)]
struct Request {
    network: IpAddr,
    bytes: usize,
    /// Ends it. None once its body is there: it is about to be answered.
    end: Option<AbortHandle>,
}

/// There is no room for this much of this network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl Room {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            bytes,
            taken: Mutex::default(),
        }
    }

    /// Room for a request from `address` whose body is still to come, and which `end` ends when it
    /// has to give way.
    pub(crate) fn admit(
        &self,
        address: IpAddr,
        head: &Parts,
        end: AbortHandle,
    ) -> Result<Place<'_>, NoRoom> {
        let fields = head.headers.iter();
        let fields: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        let target = head.uri.path_and_query().map_or(0, |it| it.as_str().len());
        let request = Request {
            network: rates::network(address),
            bytes: 0,
            end: Some(end),
        };
        let place = Place {
            room: self,
            number: self.taken().add(request),
        };
        place.widen(EACH + fields + target)?;
        Ok(place)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn add(&mut self, request: Request) -> u64 {
        let number = self.next;
        self.next += 1;
        self.requests.insert(number, request);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Request> {
        let request = self.requests.remove(&number)?;
        self.bytes -= request.bytes;
        if let Some(theirs) = self.by.get_mut(&request.network) {
            *theirs -= request.bytes;
            if *theirs == 0 {
                self.by.remove(&request.network);
            }
        }
        Some(request)
    }

    /// Ends a request of the network that has the most, if that is more than `theirs`.
    fn make_room(&mut self, theirs: usize) -> Result<(), NoRoom> {
        if self.by.values().all(|bytes| *bytes <= theirs) {
            return Err(NoRoom);
        }
        let waiting = self.requests.iter().filter(|(_, it)| it.end.is_some());
        let of_most = waiting
            .map(|(number, it)| (self.by.get(&it.network), Reverse(*number)))
            .max();
        let Some((Some(most), Reverse(number))) = of_most else {
            return Err(NoRoom);
        };
        if *most <= theirs {
            return Err(NoRoom);
        }
        if let Some(end) = self.remove(number).and_then(|request| request.end) {
            end.abort();
        }
        Ok(())
    }
}

/// What one request has of the room until it is answered.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    room: &'a Room,
    number: u64,
}

impl Place<'_> {
    /// Takes so many bytes more.
    pub(crate) fn widen(&self, bytes: usize) -> Result<(), NoRoom> {
        let mut taken = self.room.taken();
        // Whether it still has a place at all.
        let network = taken.requests.get(&self.number).ok_or(NoRoom)?.network;
        let theirs = taken.by.get(&network).copied().unwrap_or_default();
        let theirs = theirs.saturating_add(bytes);
        while taken.bytes.saturating_add(bytes) > self.room.bytes {
            taken.make_room(theirs)?;
        }
        taken.bytes += bytes;
        taken.by.insert(network, theirs);
        if let Some(request) = taken.requests.get_mut(&self.number) {
            request.bytes += bytes;
        }
        Ok(())
    }

    /// Its body is there: it gives way to nobody any more.
    pub(crate) fn settle(&self) -> Result<(), NoRoom> {
        let mut taken = self.room.taken();
        let request = taken.requests.get_mut(&self.number).ok_or(NoRoom)?;
        request.end = None;
        Ok(())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.room.taken().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn head() -> Parts {
        http::Request::post("/token")
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    fn network(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    impl Room {
        /// A place, and what ends the request that has it.
        fn place(&self, address: IpAddr) -> Result<(Place<'_>, AbortHandle), NoRoom> {
            let (end, _) = AbortHandle::new_pair();
            Ok((self.admit(address, &head(), end.clone())?, end))
        }

        fn had_by(&self, address: IpAddr) -> usize {
            self.taken().by.get(&address).copied().unwrap_or_default()
        }
    }

    /// Networks that take all they can get, one after another, each place of this size at most.
    fn fill(room: &Room, networks: u32, size: usize) -> Vec<(Place<'_>, AbortHandle)> {
        let mut places = Vec::new();
        for n in 1..=networks {
            while let Ok((place, end)) = room.place(network(n)) {
                let _ = place.widen(size);
                places.push((place, end));
            }
        }
        places
    }

    #[test]
    fn one_that_has_everything_gives_way_to_whoever_has_less() {
        let room = Room::new(MIB);
        let places = fill(&room, 1, 1000);
        assert_eq!(room.place(network(1)).unwrap_err(), NoRoom);

        let (other, end) = room.place(network(2)).unwrap();
        assert_eq!(other.widen(MIB / 3), Ok(()));
        assert!(!end.is_aborted());
        // The oldest first, and it is told.
        let ended: Vec<_> = places.iter().map(|(_, end)| end.is_aborted()).collect();
        assert!(ended[0] && ended.is_sorted_by(|a, b| a >= b), "{ended:?}");
        assert_eq!(places[0].0.widen(1), Err(NoRoom));
        assert_eq!(places[0].0.settle(), Err(NoRoom));
        // Not to one that would have more than it.
        assert_eq!(other.widen(MIB / 3), Err(NoRoom));
        assert!(!end.is_aborted());
    }

    #[test]
    fn however_many_take_what_they_get_another_finds_room() {
        for n in [1, 2, 10, 100] {
            for size in [1024, 16 * 1024] {
                let room = Room::new(4 * MIB);
                let places = fill(&room, n, size);
                assert!(room.taken().bytes > 3 * MIB, "{n} {size}");
                let (other, end) = room.place(network(0)).unwrap();
                assert_eq!(other.widen(4 * 1024), Ok(()), "beside {n}");
                let (another, _) = room.place(network(n + 1)).unwrap();
                assert!(!end.is_aborted() && other.settle().is_ok());
                drop((another, places));
            }
        }
    }

    #[test]
    fn what_is_about_to_be_answered_gives_way_to_nobody() {
        let room = Room::new(MIB);
        let places = fill(&room, 1, 1000);
        for (place, _) in &places {
            place.settle().unwrap();
        }
        assert!(room.place(network(2)).is_err());
        assert!(places.iter().all(|(_, end)| !end.is_aborted()));
    }

    #[test]
    fn what_is_answered_or_refused_leaves_nothing_behind() {
        let room = Room::new(MIB);
        let (place, _) = room.place(network(1)).unwrap();
        let had = room.had_by(network(1));
        assert_eq!(place.widen(MIB), Err(NoRoom));
        assert_eq!(place.widen(usize::MAX), Err(NoRoom));
        assert_eq!((room.had_by(network(1)), room.taken().bytes), (had, had));

        drop((fill(&room, 5, 100), place));
        let taken = room.taken();
        assert_eq!(taken.bytes, 0);
        assert!(taken.by.is_empty() && taken.requests.is_empty());
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_and_long_heads_count() {
        let room = Room::new(MIB);
        let mut long = head();
        let value = "x".repeat(20_000).parse().unwrap();
        long.headers.insert("x-long", value);
        let host = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]);
        let admit = |n| room.admit(host(n), &long, AbortHandle::new_pair().0).ok();
        let places: Vec<_> = (1..=100).filter_map(admit).collect();
        assert_eq!(places.len(), MIB / (EACH + 20_000 + 12));
        assert_eq!(room.taken().by.len(), 1);
    }
}
