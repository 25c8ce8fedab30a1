"""From the values of an image to what an encoder takes: the same for a site's training and for one array at hand.

Arrays alone, no file: reading images is a site's (`hilum.client.intake`), and so is keeping what was prepared (`hilum.client.data`).
"""
