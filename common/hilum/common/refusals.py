"""Every way in which a site says no to a request of the federation, as a code and fixed words.

This module owns those codes. Why a file was set aside at a site is `hilum.client.intake.reasons`; why the server does not
take what a site sent is `hilum.common.errors.UpdateRefused`.

A refusal leaves a hospital, so it holds nothing else: no value, no name of a file or column, no count. What exactly was
asked and what is allowed stands in the site's own log.
"""

REFUSALS: dict[str, str] = {
    "wrong_format": "the request lacks a part, or has one of another kind or size",
    "unsigned": "the study is not signed by the admin whose key the site has pinned",
    "expired": "the study's signature has expired; submit it again with --resume",
    "not_yet_valid": "the study was signed in the future; compare the clocks of admin and site",
    "not_invited": "the study does not name this site",
    "version": "the study and the site have different versions of Hilum; install the same one",
    "config": "the study is not valid; `hilum study check` says why",
    "run_taken": "a run of this name with another study was seen here before; choose another name",
    "run_over": "the site has finished this run, and trains no more for it",
    "round": "the round is not one of the study's",
    "start": "the weights to start from are not those whose hash the admin signed",
    "repeated": "the same round was asked for from different weights too often",
    "policy_methods": "the site's policy does not list the method",
    "policy_encoders": "the site's policy does not list the encoder or its size",
    "policy_rounds": "the study has more rounds than the site's policy allows",
    "policy_epochs": "the study has more local epochs or steps of fine-tuning than the site's policy allows",
    "policy_batch": "the study has larger batches than the site's policy allows",
    "policy_patches": "an image of the study has more patches or voxels than the site's policy allows",
    "policy_memory": "the study would need more memory than the site's policy allows or the machine has",
    "policy_disk": "the study would need more disk than the site's policy allows or the machine has free",
    "policy_hours": "the run has used up the hours of training that the site's policy allows",
    "policy_bytes": "the run would send more bytes than the site's policy allows",
    "policy_test_share": "the share of test patients lies outside of the site's policy",
    "policy_labels": "the site's policy does not list the label column",
    "policy_min_patients": "the study's threshold of patients is lower than the site's policy allows",
    "policy_scores": "the study would have more rounds scored on validation patients than the site's policy allows",
    "policy_evaluations": "the site has answered as many different evaluations as its policy allows",
    "too_few_patients": "fewer patients than the threshold would stand behind the answer",
    "no_labels": "the site has no label table for this task",
    "data": "the site's images or labels can't serve the study; the site's log says why",
    "trainer_died": "the site's training process died twice on this request; the site's log says why",
    "machine": "a disk, a folder or the memory of the site's machine does not allow it; the site's log says which",
    "failed": "the site's process failed; the site's log says why",
}
