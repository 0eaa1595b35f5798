/* hub.h - a model's directory: a path, or an id in the local Hugging Face hub cache. Nothing is ever fetched. */
#ifndef KS_MODEL_HUB_H
#define KS_MODEL_HUB_H

/* Directory of a model id ("org/name") in the hub cache. The cache is HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub,
 * else ~/.cache/huggingface/hub; in it models--ORG--NAME/refs/REVISION names a directory under snapshots/. revision: NULL for "main";
 * a snapshot's hash is a revision too. Caller frees *dir. KS_EUSAGE for what cannot be an id, KS_EINPUT says where it looked and what is
 * there. */
int ks_hub_resolve(char **dir, const char *id, const char *revision);

/* The same for what a user typed: an existing directory is taken as it is (revision must then be NULL), anything else is an id; what can
 * be neither is KS_EINPUT. */
int ks_hub_find(char **dir, const char *dir_or_id, const char *revision);

#endif
