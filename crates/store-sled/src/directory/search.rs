//! Searching: what is in memory, and the blocks that may hold something.

use steadfast_core::{InstanceFilter, InstanceId};
use steadfast_store::StoreError;

use super::group::Members;
use super::recent::Recent;
use super::wanted::{self, IdRange, Wanted};
use super::{Directory, READING, entry, is_before, summary};
use crate::error::from_sled;

/// What is known while the blocks are searched.
struct Search<'a> {
    recent: &'a Recent,
    wanted: &'a Wanted,
    range: &'a IdRange,
    /// Behind this id there is no need to look.
    bound: Option<InstanceId>,
    limit: usize,
    found: Vec<InstanceId>,
}

impl Search<'_> {
    fn is_behind(&self, id: &[u8]) -> bool {
        self.range.ends_before(id) || self.bound.as_ref().is_some_and(|bound| bound.as_str().as_bytes() < id)
    }
}

impl Directory {
    /// The first `limit` instances behind `after` that may match, by id. Fewer only when there are no more.
    pub(crate) fn find(
        &self,
        filter: &InstanceFilter,
        after: Option<&InstanceId>,
        limit: usize,
    ) -> Result<Vec<InstanceId>, StoreError> {
        let wanted = Wanted::new(filter);
        let recent = self.recent.read();
        let mut found = Vec::new();
        for range in wanted::id_ranges(filter, after) {
            let limit = limit - found.len();
            if limit == 0 {
                break;
            }
            let mut within = recent.search(&wanted, &range, limit);
            let bound = within.get(limit - 1).cloned();
            let (recent, wanted, range) = (&recent, &wanted, &range);
            let mut search = Search { recent, wanted, range, bound, limit, found: Vec::new() };
            self.search_groups(&mut search)?;
            within.append(&mut search.found);
            within.sort_unstable();
            within.truncate(limit);
            found.append(&mut within);
        }
        Ok(found)
    }

    fn search_groups(&self, search: &mut Search<'_>) -> Result<(), StoreError> {
        let reading = |error| from_sled(READING, &error);
        let first = self.place_of(&search.range.from)?.key;
        let mut groups = self.groups.range(first..).peekable();
        while let Some(row) = groups.next() {
            let (key, group) = row.map_err(reading)?;
            let next = match groups.peek() {
                Some(Ok((next, _))) => Some(&next[..]),
                Some(Err(error)) => return Err(from_sled(READING, error)),
                None => None,
            };
            if search.is_behind(&key) || !self.search_group(search, &group, next)? {
                break;
            }
        }
        Ok(())
    }

    /// Searches the blocks of a group, which ends before `next`. Returns whether there is a need to go on.
    fn search_group(
        &self,
        search: &mut Search<'_>,
        group: &[u8],
        next: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        let mut members = Members::new(group);
        while let Some(member) = members.next()?.filter(|member| is_before(member.key, next)) {
            if search.is_behind(member.key) {
                return Ok(false);
            }
            let end = members.peek_key().filter(|key| is_before(key, next)).or(next);
            let ends_before = end.is_some_and(|end| end <= &*search.range.from);
            if ends_before || !summary::may_match(member.summary, search.wanted)? {
                continue;
            }
            self.visit_block(member.key, end, |id, entry| {
                if search.is_behind(id) {
                    return Ok(false);
                }
                if search.wanted.matches(&entry) && !search.range.begins_after(id) {
                    let id = entry::id_of(id)?;
                    if !search.recent.knows(id.as_str()) {
                        search.found.push(id);
                    }
                }
                Ok(search.found.len() < search.limit)
            })?;
            if search.found.len() >= search.limit {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
