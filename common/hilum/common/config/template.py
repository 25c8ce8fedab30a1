"""The commented study file that `hilum study new` writes."""

STUDY_TEMPLATE = """\
# A Hilum study: what every site is asked to do. Check it with `hilum study check FILE`.

[study]
name = "{name}"            # letters, digits, '.', '_' and '-'
seed = 7                   # the same seed gives the same encoder, bit for bit, on the same kind of processor

[data]
modality = "radiograph"    # radiograph (CR, DX), mammogram, ct, mr, pet, ultrasound, angiogram, photograph, fundus, pathology
dims = 2                   # 2 for images; 3 for volumes of CT, MR and PET
image_size = 64            # edge in pixels (or voxels) of what the encoder sees; of patches also [D, H, W]
# cut = "patches"          # of each volume: "patches", or it is taken "whole", scaled into a cube; in 2D also "slices" of volumes
# spacing_mm = 1.0         # of patches: what volumes are resampled to; also [D, H, W]
# per_volume = 4           # patches or slices of each volume in an epoch
# window_hu = [-160, 240]  # ct only; default: -1000 to 1000
# intensity = "zscore"     # mr and pet; default: "percentiles"; of PET volumes also "suv"
# window_suv = [0, 10]     # with intensity = "suv" only; default: 0 to 10

[encoder]
name = "vit"               # one of `hilum encoders`
size = "tiny"              # tiny, small or base
patch_size = 8             # vit only; image_size must be a multiple of it
positions = "sincos"       # vit only; sincos is computed, learned is a table that trains

# [encoder.init]           # start from pre-trained weights; `hilum encoders inspect FILE` prints this table
# file = "vit.safetensors"
# sha256 = "..."           # of the file

[method]
name = "mae"               # one of `hilum methods`
mask_ratio = 0.75          # mae only; 0.9 suits large radiographs
# decoder_width = 512      # mae only, and decoder_depth = 8; default: these for a small or base encoder, 96 and 2 for a tiny one
share_decoder = true       # mae only; false keeps the decoder at each site, and the encoder alone travels

[views]
allow = []                 # views that the modality refuses and this study takes, such as "horizontal_flip"
# [views.crop]             # ranges in place of the modality's; [views.strong] for a method whose views must disagree (simclr)
# rotation_deg = 10.0      # docs: reference/views

[training]
batch_size = 256           # images per step; a small site takes fewer, and write less where an epoch is but a step or two
accumulate = 1             # steps whose gradients are summed before the weights move
local_epochs = 2           # passes over the site's images in each round
# base_learning_rate = 1.5e-4  # peak for a step of 256 images, a step of others takes its share; default: the method's own
weight_decay = 0.05
warmup = 0.1               # share of the whole schedule
gradient_clip = 1.0        # Euclidean norm
precision = "auto"         # auto: bf16 where the device has it, else fp32
threads = 1                # per site; the same number everywhere gives the same bits everywhere
checkpoint_minutes = 10.0  # how long a killed site may have trained for nothing
compile = true             # on a GPU: make kernels for this encoder, where a study is long enough that it pays
deterministic = false      # on a GPU: true gives the same bits in each run, and takes more time
gradient_checkpointing = false  # true takes a fraction of the memory and a fifth to a third more time, same bits
select = "none"            # which round's encoder is the study's: none (the last), loss, or knn (on training patients)
stop_on_collapse = false   # true ends the study where the features of all images have become one at most sites

[federation]
rounds = 5
sites = 3                  # how many sites take part
# quorum = 2               # updates that a round needs; default: a majority, and at least two
deadline_s = 3600          # per round
return_s = 120             # how long a round that has its quorum waits for a site that was lost
example_cap = 10000        # a site weighs by its number of images, rounded down, at most this
norm_ratio = 10.0          # an update may be so many times as large as the median of those before it

[federation.aggregator]
name = "fedavg"            # fedavg, or fedavgm: with momentum at the server
# momentum = 0.9           # fedavgm only
# learning_rate = 1.0      # fedavgm only

[privacy]
mechanism = "none"         # no noise, so no epsilon is claimed
# max_update_norm = 10.0   # bound on what one site can change in one round
min_patients = 11          # fewest patients behind a number that leaves a site; only simulations may lower it

[tasks.classification]
label = "label"            # the column of each site's labels.csv

# [tasks.regression]       # a number, such as an age or a volume; beside the other or alone
# label = "age"
# coverage = 0.9           # share of images that the prediction intervals are to hold

# [tasks.multilabel]       # several findings in a cell, with | or ; between them
# label = "findings"
# nothing = "No Finding"   # what a cell says of an image without any

# [tasks.retrieval]        # training images of a test image's class, by protocol knn alone
# label = "label"
# k = 5                    # how many are found for precision_at_k

[evaluation]
protocols = ["knn", "linear", "finetune"]
arms = ["federated", "local", "centralised", "scratch", "random", "raw"]
label_fractions = [0.1, 1.0]   # the verdict rests on the first
test_share = 0.3           # of the labelled patients; never seen in pre-training
bootstrap_draws = 1000     # over patients, for the 95 % intervals
deadline_s = 86400         # how long the server waits for the sites' measurements
knn_k = 20
finetune_epochs = 10
finetune_batch_size = 16
finetune_min_steps = 500   # more epochs than finetune_epochs where these are fewer steps
finetune_learning_rate = 5e-4
layer_decay = "auto"       # of each layer's rate to the next one's: the encoder's own, or a number; 1 is none
validation_share = 0.2     # of the labelled training patients, held out to choose when to stop and to calibrate
patience = 5               # looks at their loss without a lower one, of 25, that end a training
class_weights = "balanced" # or none: every image weighs the same
precision = "fp32"         # of fine-tuning; or bf16
frozen_learning_rate = 5e-3  # of protocol "frozen": the head alone is trained
lora_learning_rate = 2e-3    # of protocol "lora": the head and low-rank adapters are
lora_rank = 8
lora_alpha = 16.0
"""
