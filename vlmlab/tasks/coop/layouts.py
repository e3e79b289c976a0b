"""The 15 data sets of CoOp: where they lie below one root folder, what is in them, where to get them.

Zhou et al. 2022, "Learning to Prompt for Vision-Language Models": folders as in its DATASETS.md, templates as
in its code and that of the methods built on it.
"""

import dataclasses

PARTS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Layout:
    """One data set.

    folder: below the root. images: folder of the images below `folder`, what paths of lists are relative to.
    counts: train, val and test images as published. pages: where the images are to be had.
    kind: how the lists of images are found: "split" (a split file), "variants" (text files of FGVC-Aircraft)
    or "folders" (a folder per class). parts: the folder below `images` that each part is in, where they have
    folders of their own.
    split, drive: CoOp's split file and its id on Google Drive. digest: of the published split, see
    `lists.digest`; where no copy of it was at hand, `witness` has positions and paths of its train list.
    """

    id: str
    folder: str
    images: str
    template: str
    classes: int
    counts: tuple[int, int, int]
    pages: tuple[str, ...]
    kind: str = "split"
    split: str = ""
    drive: str = ""
    digest: str = ""
    witness: tuple[tuple[int, str], ...] = ()
    parts: tuple[tuple[str, str], ...] = ()

    @property
    def where(self) -> str:
        """What to do to get the images."""
        place = f"{self.folder}/{self.images}".rstrip("/")
        return f"get it from {' and '.join(self.pages)} and lay it out as {place} below the root"

    @property
    def split_page(self) -> str:
        return drive_page(self.drive)


def drive_page(id: str) -> str:
    return f"https://drive.google.com/file/d/{id}/view"


CLASSNAMES_PAGE = drive_page("1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF")
CAT_TO_NAME_PAGE = drive_page("1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0")
VGG = "https://www.robots.ox.ac.uk/~vgg/data"
PHOTO = "a photo of a {}."

LAYOUTS = {
    layout.id: layout
    for layout in (
        Layout(
            "imagenet",
            "imagenet",
            "images",
            PHOTO,
            1000,
            (1_281_167, 0, 50_000),
            ("https://image-net.org",),
            "folders",
            parts=(("train", "train"), ("test", "val")),
        ),
        Layout(
            "caltech101",
            "caltech-101",
            "101_ObjectCategories",
            PHOTO,
            100,
            (4128, 1649, 2465),
            ("https://data.caltech.edu/records/mzrjq-6wc02 (101_ObjectCategories.tar.gz)",),
            split="split_zhou_Caltech101.json",
            drive="1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
            digest="59b157295780874c",
        ),
        Layout(
            "oxford_pets",
            "oxford_pets",
            "images",
            "a photo of a {}, a type of pet.",
            37,
            (2944, 736, 3669),
            (f"{VGG}/pets (images and annotations)",),
            split="split_zhou_OxfordPets.json",
            drive="1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
            digest="913b0d82ec5aa66a",
        ),
        Layout(
            "stanford_cars",
            "stanford_cars",
            "",
            PHOTO,
            196,
            (6509, 1635, 8041),
            ("http://ai.stanford.edu/~jkrause/cars/car_dataset.html (cars_train, cars_test, devkit)",),
            parts=(("train", "cars_train"), ("test", "cars_test")),
            split="split_zhou_StanfordCars.json",
            drive="1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
            digest="79c6ad5b98c4ee1b",
        ),
        Layout(
            "oxford_flowers",
            "oxford_flowers",
            "jpg",
            "a photo of a {}, a type of flower.",
            102,
            (4093, 1633, 2463),
            (f"{VGG}/flowers/102 (102flowers.tgz, imagelabels.mat)",),
            split="split_zhou_OxfordFlowers.json",
            drive="1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
            digest="c689f9265d2e406a",
        ),
        Layout(
            "food101",
            "food-101",
            "images",
            "a photo of {}, a type of food.",
            101,
            (50_500, 20_200, 30_300),
            ("https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",),
            split="split_zhou_Food101.json",
            drive="1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl",
            witness=(
                (48843, "takoyaki/1841734.jpg"),
                (49097, "tiramisu/3173439.jpg"),
                (49655, "tuna_tartare/1834110.jpg"),
                (50145, "waffles/3402541.jpg"),
            ),
        ),
        Layout(
            "fgvc_aircraft",
            "fgvc_aircraft",
            "images",
            "a photo of a {}, a type of aircraft.",
            100,
            (3334, 3333, 3333),
            (f"{VGG}/fgvc-aircraft (the folder data/ of fgvc-aircraft-2013b.tar.gz)",),
            "variants",
        ),
        Layout(
            "sun397",
            "sun397",
            "SUN397",
            PHOTO,
            397,
            (15_880, 3970, 19_850),
            ("https://vision.princeton.edu/projects/2010/SUN (SUN397.tar.gz, Partitions.zip)",),
            split="split_zhou_SUN397.json",
            drive="1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq",
            witness=(
                (8, "a/abbey/sun_anunhwbsxmmdzwmk.jpg"),
                (76, "a/airplane_cabin/sun_ahtjutyciamzamkv.jpg"),
                (84, "a/airport_terminal/sun_abhavxyiuqqdxvgd.jpg"),
                (136, "a/alley/sun_admhozytufmutbsb.jpg"),
            ),
        ),
        Layout(
            "dtd",
            "dtd",
            "images",
            "{} texture.",
            47,
            (2820, 1128, 1692),
            (f"{VGG}/dtd (dtd-r1.0.1.tar.gz)",),
            split="split_zhou_DescribableTextures.json",
            drive="1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
            digest="af4663c049d48fac",
        ),
        Layout(
            "eurosat",
            "eurosat",
            "2750",
            "a centered satellite photo of {}.",
            10,
            (13_500, 5400, 8100),
            ("https://github.com/phelber/EuroSAT (EuroSAT.zip, the RGB version)",),
            split="split_zhou_EuroSAT.json",
            drive="1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",
            digest="513f6e1964f9148a",
        ),
        Layout(
            "ucf101",
            "ucf101",
            "UCF-101-midframes",
            "a photo of a person doing {}.",
            101,
            (7639, 1898, 3783),
            (f"{drive_page('10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O')} (UCF-101-midframes.zip)",),
            split="split_zhou_UCF101.json",
            drive="1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
            digest="f8c863a9e9ac2eb5",
        ),
        Layout(
            "imagenetv2",
            "imagenetv2",
            "imagenetv2-matched-frequency-format-val",
            PHOTO,
            1000,
            (0, 0, 10_000),
            ("https://github.com/modestyachts/ImageNetV2 (matched-frequency)",),
            "folders",
            parts=(("test", ""),),
        ),
        Layout(
            "imagenet_sketch",
            "imagenet-sketch",
            "images",
            PHOTO,
            1000,
            (0, 0, 50_889),
            ("https://github.com/HaohanWang/ImageNet-Sketch",),
            "folders",
            parts=(("test", ""),),
        ),
        Layout(
            "imagenet_a",
            "imagenet-adversarial",
            "imagenet-a",
            PHOTO,
            200,
            (0, 0, 7500),
            ("https://github.com/hendrycks/natural-adv-examples",),
            "folders",
            parts=(("test", ""),),
        ),
        Layout(
            "imagenet_r",
            "imagenet-rendition",
            "imagenet-r",
            PHOTO,
            200,
            (0, 0, 30_000),
            ("https://github.com/hendrycks/imagenet-r",),
            "folders",
            parts=(("test", ""),),
        ),
    )
}
SHIFTS = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
OTHERS = tuple(id for id in LAYOUTS if id != "imagenet" and id not in SHIFTS)
