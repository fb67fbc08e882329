//! Changes to links.

use super::{EntryKind, check_plan, put};
use crate::{
    catalog::{Catalog, ChangeError, secrets, snapshot::Snapshot},
    core::{AccountId, Campaign, Destination, Link, LinkId, UnixMillis, Variant},
};

/// A link to be made. Its fields are within their limits already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkDraft {
    /// Shown to people.
    pub name: String,
    /// Its name in `/r/{slug}`; none: one is issued.
    pub slug: Option<String>,
    /// Where it leads.
    pub destination: Destination,
    /// What is shown in turn.
    pub variants: Vec<Variant>,
    /// Whether `click_id` is appended to the destination's query.
    pub append_click_id: bool,
    /// What a visit's own UTM parameters leave open.
    pub campaign: Campaign,
}

/// What to change of a link; `None` leaves a field as it is. A slug stands in e-mails and on paper: it never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkPatch {
    /// Shown to people.
    pub name: Option<String>,
    /// Where it leads.
    pub destination: Option<Destination>,
    /// What is shown in turn.
    pub variants: Option<Vec<Variant>>,
    /// Whether `click_id` is appended to the destination's query.
    pub append_click_id: Option<bool>,
    /// `utm_source` where a visit has none; likewise the following.
    pub utm_source: Option<String>,
    /// `utm_medium`.
    pub utm_medium: Option<String>,
    /// `utm_campaign`.
    pub utm_campaign: Option<String>,
    /// `utm_term`.
    pub utm_term: Option<String>,
    /// `utm_content`.
    pub utm_content: Option<String>,
}

/// Each of these writes and syncs the catalog's file: call them where blocking is allowed.
impl Catalog {
    /// Makes a link. A slug that any account's link has or had is refused.
    pub fn create_link(
        &self,
        account_id: AccountId,
        draft: LinkDraft,
        now: UnixMillis,
    ) -> Result<Link, ChangeError> {
        self.change(|snapshot| {
            check_plan(snapshot, account_id)?;
            self.limits.check_room(snapshot, account_id, EntryKind::Link)?;
            let slug = match draft.slug {
                Some(slug) if snapshot.has_slug(&slug) => return Err(ChangeError::SlugTaken),
                Some(slug) => slug,
                None => free_slug(snapshot)?,
            };
            let link = Link {
                id: LinkId(snapshot.next_id(EntryKind::Link)),
                account_id,
                name: draft.name,
                slug,
                destination: draft.destination,
                variants: draft.variants,
                append_click_id: draft.append_click_id,
                campaign: draft.campaign,
                created_at: now,
            };
            Ok(snapshot.put_link(link, false))
        })
    }

    /// Changes a link; visitors meet the change at once.
    pub fn change_link(&self, account: AccountId, id: LinkId, patch: LinkPatch) -> Result<Link, ChangeError> {
        self.change(|snapshot| {
            check_plan(snapshot, account)?;
            let mut link = live(snapshot, account, id)?;
            put(&mut link.name, patch.name);
            put(&mut link.destination, patch.destination);
            put(&mut link.variants, patch.variants);
            put(&mut link.append_click_id, patch.append_click_id);
            put(&mut link.campaign.source, patch.utm_source);
            put(&mut link.campaign.medium, patch.utm_medium);
            put(&mut link.campaign.campaign, patch.utm_campaign);
            put(&mut link.campaign.term, patch.utm_term);
            put(&mut link.campaign.content, patch.utm_content);
            Ok(snapshot.put_link(link, false))
        })
    }

    /// Deletes a link: its slug leads nowhere from then on and stays taken, its clicks stay. Returns it as it was.
    pub fn delete_link(&self, account: AccountId, id: LinkId) -> Result<Link, ChangeError> {
        self.change(|snapshot| {
            let link = live(snapshot, account, id)?;
            Ok(snapshot.put_link(link, true))
        })
    }
}

fn live(snapshot: &Snapshot, account: AccountId, id: LinkId) -> Result<Link, ChangeError> {
    snapshot.link(account, id).cloned().ok_or(ChangeError::Unknown(EntryKind::Link))
}

/// A slug that no link has or had. Of 50 random bits the first try is free as good as always.
fn free_slug(snapshot: &Snapshot) -> Result<String, ChangeError> {
    loop {
        let slug = secrets::new_slug()?;
        if !snapshot.has_slug(&slug) {
            return Ok(slug);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::{AccountDraft, AccountPatch, changes::Limits, tests::Still},
        core::Plan,
    };

    const ME: AccountId = AccountId(1);
    const NOW: UnixMillis = UnixMillis(5);

    fn draft(slug: Option<&str>) -> LinkDraft {
        LinkDraft {
            name: "Winter".into(),
            slug: slug.map(str::to_owned),
            destination: Destination::parse("https://shop.example/?cid={click_id}").expect("a destination"),
            variants: vec![Variant { name: "A".into(), weight: 1, destination: None }],
            append_click_id: true,
            campaign: Campaign { source: "mail".into(), ..Campaign::default() },
        }
    }

    fn open(folder: &tempfile::TempDir) -> Catalog {
        Catalog::open(folder.path(), &Still(1_000), None).expect("opened").catalog
    }

    #[test]
    fn links_survive_a_restart_and_their_slugs_a_deletion() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = open(&folder);
        let kept = catalog.create_link(ME, draft(Some("winter")), NOW).expect("made");
        let gone = catalog.create_link(ME, draft(Some("summer")), NOW).expect("made");
        let patch = LinkPatch {
            name: Some("Winter 2".into()),
            variants: Some(Vec::new()),
            utm_source: Some(String::new()),
            ..LinkPatch::default()
        };
        let kept = catalog.change_link(ME, kept.id, patch).expect("changed");
        assert_eq!(
            (kept.name.as_str(), kept.slug.as_str(), kept.append_click_id),
            ("Winter 2", "winter", true)
        );
        assert_eq!((kept.variants.len(), kept.campaign.source.as_str()), (0, ""));
        catalog.delete_link(ME, gone.id).expect("deleted");
        drop(catalog);

        let catalog = open(&folder);
        assert_eq!(catalog.snapshot().links(ME).collect::<Vec<_>>(), [&kept]);
        assert_eq!(catalog.snapshot().link_by_slug("winter"), Some(&kept));
        assert_eq!(catalog.snapshot().link_by_slug("summer"), None);
        for slug in ["winter", "summer", "Winter", "SUMMER"] {
            let refused = catalog.create_link(ME, draft(Some(slug)), NOW);
            assert!(matches!(refused, Err(ChangeError::SlugTaken)), "{slug}");
        }
        let next = catalog.create_link(ME, draft(Some("autumn")), NOW).expect("another slug");
        assert_eq!(next.id, LinkId(3), "a deleted link's number stays taken");
    }

    #[test]
    fn an_account_has_room_of_its_own_however_often_it_creates_and_deletes() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut catalog = open(&folder);
        catalog.limits = Limits { links: 3, deleted: 5, ..Limits::USUAL };
        let other = AccountDraft { name: "other".into(), plan: Plan::Pro, rate_limit_per_minute: None };
        let other = catalog.create_account(other, NOW).expect("made").0.id;
        let make_links = |count: usize| -> Vec<LinkId> {
            (0..count).map(|_| catalog.create_link(other, draft(None), NOW).expect("made").id).collect()
        };
        let mut theirs = make_links(3);
        for _ in 0..20 {
            let full = catalog.create_link(other, draft(None), NOW);
            assert!(matches!(full, Err(ChangeError::TooMany { kind: EntryKind::Link, most: 3 })));
            catalog
                .create_link(ME, draft(None), NOW)
                .map(|link| catalog.delete_link(ME, link.id))
                .expect("made")
                .expect("deleted");
            catalog.delete_link(other, theirs.remove(0)).expect("deleted");
            theirs.extend(make_links(1));
            // What the copy knows of is purged; before that, deleted ones wait, and not without a bound.
            catalog.purge(catalog.snapshot().version()).expect("purged");
        }
        assert_eq!(catalog.snapshot().rows_since(0, usize::MAX).links.len(), 3, "nothing deleted is left");
        for link in theirs {
            catalog.delete_link(other, link).expect("deleted");
        }
        let mut last = 0;
        for _ in 0..2 {
            last = catalog.create_link(other, draft(None), NOW).expect("made").id.0;
            catalog.delete_link(other, LinkId(last)).expect("deleted");
        }
        let behind = catalog.create_link(other, draft(None), NOW);
        assert!(matches!(behind, Err(ChangeError::CopyBehind(EntryKind::Link))));
        let mine = catalog.create_link(ME, draft(Some("mine")), NOW).expect("not held up by it").id;
        catalog.delete_link(ME, mine).expect("deleted");
        catalog.purge(catalog.snapshot().version()).expect("purged");
        drop(catalog);

        let catalog = open(&folder);
        let next = catalog.create_link(other, draft(None), NOW).expect("made");
        assert!(next.id.0 > last, "a purged link's number stays taken");
        let slug = catalog.create_link(other, draft(Some("mine")), NOW);
        assert!(matches!(slug, Err(ChangeError::SlugTaken)), "and so does its slug");
    }

    #[test]
    fn slugs_are_issued_short_and_without_look_alikes() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = open(&folder);
        let slugs = [0; 3].map(|_| catalog.create_link(ME, draft(None), NOW).expect("made").slug);
        assert!(slugs[0] != slugs[1] && slugs[1] != slugs[2]);
        for slug in slugs {
            assert_eq!(slug.len(), 10);
            assert!(!slug.contains(['0', '1', 'i', 'l', 'o']) && crate::core::is_slug(&slug), "{slug}");
        }
    }

    #[test]
    fn another_account_sees_nothing_but_that_a_slug_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = open(&folder);
        let link = catalog.create_link(ME, draft(Some("winter")), NOW).expect("made");
        let other = AccountDraft { name: "other".into(), plan: Plan::Pro, rate_limit_per_minute: None };
        let (other, _) = catalog.create_account(other, NOW).expect("made");
        assert!(catalog.snapshot().link(other.id, link.id).is_none());
        assert_eq!(catalog.snapshot().links(other.id).count(), 0);
        for refused in [
            catalog.delete_link(other.id, link.id),
            catalog.change_link(other.id, link.id, LinkPatch::default()),
        ] {
            assert!(matches!(refused, Err(ChangeError::Unknown(EntryKind::Link))));
        }
        let taken = catalog.create_link(other.id, draft(Some("winter")), NOW);
        assert!(matches!(taken, Err(ChangeError::SlugTaken)));
    }

    #[test]
    fn a_starter_account_keeps_its_links_and_makes_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = open(&folder);
        let link = catalog.create_link(ME, draft(Some("winter")), NOW).expect("made");
        let patch = AccountPatch { plan: Some(Plan::Starter), ..AccountPatch::default() };
        catalog.change_account(ME, patch).expect("changed");
        assert!(matches!(catalog.create_link(ME, draft(None), NOW), Err(ChangeError::Plan(_))));
        let changed = catalog.change_link(ME, link.id, LinkPatch::default());
        assert!(matches!(changed, Err(ChangeError::Plan(_))));
        assert!(catalog.snapshot().link_by_slug("winter").is_some(), "visitors come all the same");
        assert!(catalog.delete_link(ME, link.id).is_ok());
    }
}
