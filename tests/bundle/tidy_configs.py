"""Configurations in the style of MONAI's model zoo, written for these tests; nothing in them is odd."""

from typing import Any

CUDA = "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"
PATHS = {
    "bundle_root": ".",
    "ckpt_dir": "$@bundle_root + '/models'",
    "output_dir": "$@bundle_root + '/eval'",
    "dataset_dir": "/workspace/data/Task09_Spleen",
}
LOAD = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2.0], "mode": "bilinear"},
    {
        "_target_": "ScaleIntensityRanged",
        "keys": "image",
        "a_min": -57,
        "a_max": 164,
        "b_min": 0,
        "b_max": 1,
        "clip": True,
    },
    {"_target_": "EnsureTyped", "keys": "image"},
]
SPLEEN_NET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [16, 32, 64, 128, 256],
    "strides": [2, 2, 2, 2],
    "num_res_units": 2,
    "norm": "batch",
}

SPLEEN_INFERENCE: dict[str, Any] = {
    "imports": ["$import glob", "$import os"],
    **PATHS,
    "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
    "device": CUDA,
    "network_def": SPLEEN_NET,
    "network": "$@network_def.to(@device)",
    "preprocessing": {"_target_": "Compose", "transforms": LOAD},
    "dataset": {
        "_target_": "Dataset",
        "data": "$[{'image': i} for i in @datalist]",
        "transform": "@preprocessing",
    },
    "dataloader": {
        "_target_": "DataLoader",
        "dataset": "@dataset",
        "batch_size": 1,
        "shuffle": False,
        "num_workers": 4,
    },
    "inferer": {
        "_target_": "SlidingWindowInferer",
        "roi_size": [96, 96, 96],
        "sw_batch_size": 4,
        "overlap": 0.5,
    },
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": False,
                "to_tensor": True,
            },
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {
                "_target_": "SaveImaged",
                "keys": "pred",
                "output_dir": "@output_dir",
                "writer": "NibabelWriter",
            },
        ],
    },
    "handlers": [
        {
            "_target_": "CheckpointLoader",
            "load_path": "$@ckpt_dir + '/model.pt'",
            "load_dict": {"model": "@network"},
        },
        {"_target_": "StatsHandler", "iteration_log": False},
    ],
    "evaluator": {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "val_handlers": "@handlers",
        "amp": True,
    },
    "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', True)"],
    "run": ["$@evaluator.run()"],
}

SPLEEN_TRAIN: dict[str, Any] = {
    "imports": ["$import glob", "$import os", "$import ignite"],
    **PATHS,
    "images": "$list(sorted(glob.glob(@dataset_dir + '/imagesTr/*.nii.gz')))",
    "labels": "$list(sorted(glob.glob(@dataset_dir + '/labelsTr/*.nii.gz')))",
    "val_interval": 5,
    "device": CUDA,
    "network_def": SPLEEN_NET,
    "network": "$@network_def.to(@device)",
    "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True, "squared_pred": True},
    "optimizer": {
        "_target_": "torch.optim.Adam",
        "params": "$@network.parameters()",
        "lr": 1e-4,
    },
    "train": {
        "deterministic_transforms": LOAD,
        "random_transforms": [
            {
                "_target_": "RandCropByPosNegLabeld",
                "keys": ["image", "label"],
                "label_key": "label",
                "spatial_size": [96, 96, 96],
                "pos": 1,
                "neg": 1,
                "num_samples": 4,
                "image_key": "image",
                "image_threshold": 0,
            }
        ],
        "preprocessing": {
            "_target_": "Compose",
            "transforms": "$@train#deterministic_transforms + @train#random_transforms",
        },
        "dataset": {
            "_target_": "CacheDataset",
            "data": "$[{'image': i, 'label': l} for i, l in zip(@images[:-9], @labels[:-9])]",
            "transform": "@train#preprocessing",
            "cache_rate": 1.0,
            "num_workers": 4,
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@train#dataset",
            "batch_size": 2,
            "shuffle": True,
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "AsDiscreted",
                    "keys": ["pred", "label"],
                    "argmax": [True, False],
                    "to_onehot": 2,
                }
            ],
        },
        "handlers": [
            {
                "_target_": "ValidationHandler",
                "validator": "@validate#evaluator",
                "epoch_level": True,
                "interval": "@val_interval",
            },
            {
                "_target_": "StatsHandler",
                "tag_name": "train_loss",
                "output_transform": "$monai.handlers.from_engine(['loss'], first=True)",
            },
            {
                "_target_": "TensorBoardStatsHandler",
                "log_dir": "@output_dir",
                "tag_name": "train_loss",
                "output_transform": "$monai.handlers.from_engine(['loss'], first=True)",
            },
        ],
        "key_metric": {
            "train_accuracy": {
                "_target_": "ignite.metrics.Accuracy",
                "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
            }
        },
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": 100,
            "device": "@device",
            "train_data_loader": "@train#dataloader",
            "network": "@network",
            "loss_function": "@loss",
            "optimizer": "@optimizer",
            "inferer": "@train#inferer",
            "postprocessing": "@train#postprocessing",
            "key_train_metric": "@train#key_metric",
            "train_handlers": "@train#handlers",
            "amp": True,
        },
    },
    "validate": {
        "dataset": {
            "_target_": "CacheDataset",
            "data": "$[{'image': i, 'label': l} for i, l in zip(@images[-9:], @labels[-9:])]",
            "transform": "@train#preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@validate#dataset", "batch_size": 1},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [96, 96, 96], "sw_batch_size": 4},
        "handlers": [
            {"_target_": "StatsHandler", "iteration_log": False},
            {
                "_target_": "CheckpointSaver",
                "save_dir": "@ckpt_dir",
                "save_dict": {"model": "@network"},
                "save_key_metric": True,
                "key_metric_filename": "model.pt",
            },
        ],
        "key_metric": {
            "val_mean_dice": {
                "_target_": "MeanDice",
                "include_background": False,
                "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
            }
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@validate#dataloader",
            "network": "@network",
            "inferer": "@validate#inferer",
            "postprocessing": "@train#postprocessing",
            "key_val_metric": "@validate#key_metric",
            "val_handlers": "@validate#handlers",
        },
    },
    "initialize": ["$monai.utils.set_determinism(seed=123)"],
    "run": ["$@train#trainer.run()"],
}

SPLEEN_EVALUATE: dict[str, Any] = {
    "validate#handlers": [
        {
            "_target_": "CheckpointLoader",
            "load_path": "$@ckpt_dir + '/model.pt'",
            "load_dict": {"model": "@network"},
        },
        {"_target_": "StatsHandler", "iteration_log": False},
    ],
    "run": ["$@validate#evaluator.run()"],
}

SPLEEN_MULTI_GPU: dict[str, Any] = {
    "+imports": ["$import ignite.distributed as idist"],
    "network": {
        "_target_": "torch.nn.parallel.DistributedDataParallel",
        "module": "$@network_def.to(@device)",
        "device_ids": ["@device"],
    },
    "train#trainer#train_handlers": "$@train#handlers[: -2 if idist.get_rank() > 0 else None]",
}

BRATS_TRAIN: dict[str, Any] = {
    "imports": ["$import os"],
    "bundle_root": "/workspace/bundle/brats",
    "data_list_file_path": "$@bundle_root + '/configs/datalist.json'",
    "data_file_base_dir": "/workspace/data/Brats2018",
    "train_datalist": "$monai.data.load_decathlon_datalist(@data_list_file_path, data_list_key='training', "
    "base_dir=@data_file_base_dir)",
    "device": CUDA,
    "network_def": {
        "_target_": "SegResNet",
        "blocks_down": [1, 2, 2, 4],
        "blocks_up": [1, 1, 1],
        "init_filters": 16,
        "in_channels": 4,
        "out_channels": 3,
        "dropout_prob": 0.2,
    },
    "network": "$@network_def.to(@device)",
    "loss": {
        "_target_": "DiceLoss",
        "smooth_nr": 0,
        "smooth_dr": 1e-5,
        "sigmoid": True,
        "to_onehot_y": False,
    },
    "optimizer": {
        "_target_": "torch.optim.Adam",
        "params": "$@network.parameters()",
        "lr": 1e-4,
        "weight_decay": 1e-5,
    },
    "lr_scheduler": {
        "_target_": "torch.optim.lr_scheduler.CosineAnnealingLR",
        "optimizer": "@optimizer",
        "T_max": 300,
    },
    "train": {
        "transforms": [
            {"_target_": "LoadImaged", "keys": ["image", "label"], "reader": "ITKReader"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "ConvertToMultiChannelBasedOnBratsClassesd", "keys": "label"},
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
            {
                "_target_": "RandSpatialCropd",
                "keys": ["image", "label"],
                "roi_size": [224, 224, 144],
                "random_size": False,
            },
            *(
                {"_target_": "RandFlipd", "keys": ["image", "label"], "prob": 0.5, "spatial_axis": axis}
                for axis in range(3)
            ),
            {"_target_": "RandScaleIntensityd", "keys": "image", "factors": 0.1, "prob": 1.0},
            {"_target_": "RandShiftIntensityd", "keys": "image", "offsets": 0.1, "prob": 1.0},
        ],
        "dataset": {
            "_target_": "Dataset",
            "data": "@train_datalist",
            "transform": {"_target_": "Compose", "transforms": "@train#transforms"},
        },
        "handlers": [
            {"_target_": "LrScheduleHandler", "lr_scheduler": "@lr_scheduler", "print_lr": True},
            {"_target_": "TensorBoardStatsHandler", "log_dir": "$@bundle_root + '/eval'"},
        ],
    },
    "initialize": ["$monai.utils.set_determinism(seed=123)"],
    "run": ["$len(@train_datalist) > 0", "$@train#handlers and None"],
}

GENERATIVE: dict[str, Any] = {
    "imports": ["$import os", "$import glob"],
    "bundle_root": ".",
    "channel": 0,
    "spacing": [1.1, 1.1, 1.1],
    "images": "$[os.path.basename(i).split('.')[0] for i in glob.glob(os.path.join(@bundle_root, '*'))]",
    "device": CUDA,
    "autoencoder_def": {
        "_target_": "monai.networks.nets.AutoencoderKL",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 1,
        "latent_channels": 8,
        "channels": [64, 128, 256],
        "num_res_blocks": 2,
        "attention_levels": [False, False, False],
    },
    "diffusion_def": {
        "_target_": "monai.networks.nets.DiffusionModelUNet",
        "spatial_dims": 3,
        "in_channels": 8,
        "out_channels": 8,
        "channels": [256, 256, 512],
        "attention_levels": [False, True, True],
        "num_head_channels": [0, 64, 64],
    },
    "noise_scheduler": {
        "_target_": "monai.networks.schedulers.DDIMScheduler",
        "_requires_": ["@autoencoder_def"],
        "num_train_timesteps": 1000,
        "schedule": "scaled_linear_beta",
        "clip_sample": False,
    },
    "inferer": {
        "_target_": "monai.inferers.LatentDiffusionInferer",
        "scheduler": "@noise_scheduler",
        "scale_factor": 1.0,
    },
    "dtype": "$torch.float32",
    "saver": {
        "_target_": "monai.transforms.SaveImaged",
        "_disabled_": "$not @images",
        "_desc_": "writes the sample",
        "keys": "pred",
        "output_dtype": "$np.float32",
        "resample": False,
    },
    "optimizer": {
        "_target_": "torch.optim.AdamW",
        "params": "$[p for p in @diffusion_def.parameters() if p.requires_grad]",
    },
    "run": ["$@diffusion_def.to(@device)"],
}

SWIN: dict[str, Any] = {
    "bundle_root": "/workspace/swin",
    "device": CUDA,
    "image_size": 96,
    "network_def": {"_target_": "SwinUNETR", "in_channels": 1, "out_channels": 14, "feature_size": 48},
    "post": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "AsDiscreted", "keys": ["pred", "label"], "argmax": [True, False], "to_onehot": 14},
            {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1]},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "$[@image_size] * 3", "overlap": 0.5},
    "names": "${str(i): 'organ ' + str(i) for i in range(14)}",
    "largest": "$max(@image_size, 64) if @image_size > 0 else None",
    "run": ["$@network_def.state_dict()"],
}

METADATA: dict[str, Any] = {
    "schema": "https://example.org/meta_schema_20240725.json",
    "version": "0.5.4",
    "changelog": {"0.5.4": "fixed #12 and 100 % of the rest", "0.5.3": "mail someone@example.org"},
    "monai_version": "1.6.1",
    "pytorch_version": "2.13.0",
    "numpy_version": "2.4.6",
    "required_packages_version": {"nibabel": "5.3.2"},
    "network_data_format": {
        "inputs": {"image": {"type": "image", "spatial_shape": ["16*n", "2**p*n", "*", 96, "32 ** p *n"]}},
        "outputs": {"pred": {"spatial_shape": ["16*n", "16*n", "16*n"], "channel_def": {"0": "background"}}},
    },
}

YAML = """\
imports:
- $import glob
bundle_root: .
device: $torch.device('cpu')
images: "$sorted(glob.glob(@bundle_root + '/*.nii.gz'))"
network_def:
  {_target_: UNet, spatial_dims: 2, in_channels: 1, out_channels: 1, channels: [4, 8], strides: [2]}
transforms: &load
- {_target_: LoadImaged, keys: image, reader: [NibabelReader, PILReader]}
- {_target_: ScaleIntensityd, keys: image}
dataset:
  _target_: Dataset
  data: "$[{'image': i} for i in @images]"
  transform: {_target_: Compose, transforms: *load}
run:
- $@network_def.to(@device)
"""

TIDY: dict[str, dict[str, Any]] = {
    "spleen, inference": {"inference.json": SPLEEN_INFERENCE},
    "spleen, training": {"train.json": SPLEEN_TRAIN},
    "spleen, evaluation over training": {"train.json": SPLEEN_TRAIN, "evaluate.json": SPLEEN_EVALUATE},
    "spleen, several GPUs over training": {
        "train.json": SPLEEN_TRAIN,
        "multi_gpu_train.json": SPLEEN_MULTI_GPU,
    },
    "BraTS, training": {"train.json": BRATS_TRAIN},
    "generation": {"inference.json": GENERATIVE},
    "transformer": {"inference.json": SWIN},
    "metadata": {"metadata.json": METADATA},
    "YAML": {"inference.yaml": YAML},
    "YAML overlay": {
        "inference.yaml": YAML,
        "more.yml": "device: $torch.device('cuda:1')\n'+transforms': []\n",
    },
}
