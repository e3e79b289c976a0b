"""Real data sets of images with texts, as they lie on disks already: COCO, Flickr30K, CC3M and VQAv2."""
